// Limits uploads to two at a time, and retries while the service is busy.

const MAX_RUNNING = 2;
const ATTEMPTS = 4;
const MAX_WAIT_S = 30; // a longer wait is shown, and the user decides when to try again

let running = 0;
const waiting = [];

/** Runs a task when its turn comes; a signal removes it from the queue. */
export async function inTurn(task, signal) {
  if (running >= MAX_RUNNING) {
    await new Promise((resolve, reject) => {
      waiting.push(resolve);
      signal.addEventListener("abort", () => {
        const index = waiting.indexOf(resolve);
        if (index >= 0) waiting.splice(index, 1);
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

/** Repeats a task after 429 and 503, when Retry-After has passed; onWait receives the seconds that are left. */
export async function withRetries(task, signal, onWait) {
  for (let left = ATTEMPTS - 1; ; left -= 1) {
    try {
      return await task();
    } catch (error) {
      if (!error.retryAfterS || error.retryAfterS > MAX_WAIT_S || left === 0) throw error;
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
