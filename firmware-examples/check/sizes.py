"""Flash and RAM of the images, against the table in ../README.md: more than a tenth beyond it fails until the table is
changed by hand."""

import re
import subprocess
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
GROWTH_MAX = 1.10


def measured(elf):
    """Bytes of flash (code, constants, initial values) and of RAM (variables; stack and heap that the linker sets aside)."""
    tool = "avr-size" if "avr" in elf.name or "mega" in elf.name else "arm-none-eabi-size"
    listing = subprocess.run([tool, str(elf)], check=True, capture_output=True, text=True).stdout
    text, data, bss = map(int, listing.splitlines()[1].split()[:3])
    return text + data, data + bss


def told():
    """What the table says: name, then flash and RAM in bytes."""
    rows = {}
    for line in README.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 7 and re.fullmatch(r"[\d,]+", cells[4]):
            name = re.search(r"`([^`]+)`", cells[0])
            rows[name[1]] = (int(cells[4].replace(",", "")), int(cells[5].replace(",", "")))
    return rows


def compare(images):
    """Prints what the images take. Raises AssertionError where one outgrew the table, or does not stand in it."""
    rows, faults = told(), []
    for name, elf in images.items():
        flash, ram = measured(elf)
        print(f"size {name}: flash {flash:,} bytes, RAM {ram:,} bytes")
        if name not in rows:
            faults.append(f"{name} does not stand in the table of {README.name}")
            continue
        for what, now, before in (("flash", flash, rows[name][0]), ("RAM", ram, rows[name][1])):
            if now > before * GROWTH_MAX:
                faults.append(f"{name}: {what} is {now:,} bytes, the table says {before:,}")
    if faults:
        raise AssertionError("; ".join(faults))
