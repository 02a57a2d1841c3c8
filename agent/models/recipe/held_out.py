"""Prints the action lines that are kept from training, under names drawn anew: `held_out.py --data DIR > FILE`."""

import argparse
import json
from pathlib import Path

from finish import held_out_actions
from rows import load_tables


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    for row in held_out_actions(load_tables(arguments.parse_args().data)):
        print(json.dumps({"prompt": row.prompt, "answer": json.loads(row.answer)}))


if __name__ == "__main__":
    main()
