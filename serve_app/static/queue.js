// Two uploads at a time, and patience with a busy service.

const AT_ONCE = 2;
const TRIES = 4; // the first and three more
const PATIENCE_S = 30; // a longer wait is said and left to the person

let running = 0;
const waiting = [];

/** Runs a task when its turn comes; a signal takes it out of the queue. */
export async function inTurn(task, signal) {
  if (running >= AT_ONCE) {
    await new Promise((resolve, reject) => {
      waiting.push(resolve);
      signal.addEventListener("abort", () => {
        const place = waiting.indexOf(resolve);
        if (place >= 0) waiting.splice(place, 1);
        reject(signal.reason);
      });
    });
  } else running += 1;
  try {
    return await task();
  } finally {
    if (waiting.length) waiting.shift()();
    else running -= 1;
  }
}

/** Asks again after 429 and 503 as often and as late as the service says; onWait hears the seconds that are left. */
export async function patiently(task, signal, onWait) {
  for (let left = TRIES - 1; ; left -= 1) {
    try {
      return await task();
    } catch (error) {
      if (!error.retryAfterS || error.retryAfterS > PATIENCE_S || left === 0) throw error;
      await countdown(error.retryAfterS, signal, onWait);
    }
  }
}

/** Counts whole seconds down to 0. */
export async function countdown(from, signal, onWait) {
  for (let left = from; left > 0; left -= 1) {
    onWait(left);
    await new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, 1000);
      signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
    });
  }
}
