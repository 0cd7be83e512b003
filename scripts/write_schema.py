"""Writes textadv/config/schema.json, by which editors check and complete configuration files.

    python scripts/write_schema.py

Run it after every change of the schema; a test compares the file with the code.
"""

from __future__ import annotations

from pathlib import Path

from textadv.tasks.file import schema_text

SCHEMA = Path(__file__).resolve().parent.parent / "textadv" / "config" / "schema.json"


def main() -> None:
    """Writes the file and says where it is."""
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    print(f"wrote {SCHEMA}")


if __name__ == "__main__":
    main()
