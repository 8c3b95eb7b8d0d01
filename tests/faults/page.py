from pathlib import Path

PAGE = Path("/dev/null")


def page(outcomes, machine):
    return ""
