"""Writes the tables of docs/support.md: `python -m tests.support.write`, from the project's folder."""

from __future__ import annotations

from tests.support.page import PAGE, rendered

if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE.name}")
