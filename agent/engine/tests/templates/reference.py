#!/usr/bin/env python3
"""Renders the chat templates of PyPI's llama-cpp-python with Python's jinja2, as Hugging Face's transformers sets it up.

    python3 -m venv .venv && .venv/bin/pip install jinja2==3.1.6
    pip download --no-binary :all: --no-deps --no-build-isolation llama-cpp-python==0.3.36
    .venv/bin/python reference.py SDIST OUT [NAME …]

For each template (all, or those named) OUT gets NAME.jinja, as it is in the sdist, and NAME.json: for each chat of CHATS
the text that jinja2 writes, or null where it raises. The sdist must be the pinned one. The folder `kept` beside this
script holds those of the families that the README names; the test `templates` compares them, and with
TIDEGATE_TEMPLATES=OUT all of OUT.
"""

import datetime
import hashlib
import json
import os
import sys
import tarfile

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

SDIST_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"  # llama_cpp_python-0.3.36.tar.gz
FOLDER = "vendor/llama.cpp/models/templates/"
# The moment that strftime_now tells, in UTC; the test has the same.
NOW = datetime.datetime(2026, 3, 7, 9, 5, 4)


def turn(role, content):
    return {"role": role, "content": content}


CHATS = [
    [turn("user", "Turn on the light.")],
    [turn("system", "Be brief."), turn("user", "Turn on the light.")],
    [turn("system", "Be brief."), turn("user", "Hi."), turn("assistant", "Hello!"), turn("user", "How warm is it?")],
    [turn("system", " Be brief.\n"), turn("user", "\n  spaces around \t"), turn("assistant", " Yes. "), turn("user", "So? ")],
    [turn("user", "Gr\u00fc\u00dfe, \u4e16\u754c \U0001f600 <b>&amp;</b> {{ x }} {% y %}")],
]


class Generation(Extension):
    """The tag that marks what the assistant wrote; as text it is nothing."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = NOW.strftime
    return made


def render(source, chat):
    values = dict(messages=chat, tools=None, documents=None, add_generation_prompt=True, enable_thinking=False)
    values.update(bos_token="<BOS>", eos_token="<EOS>")
    try:
        return environment().from_string(source).render(**values)
    except Exception as error:
        print(f"  jinja2: {type(error).__name__}: {str(error)[:100]}")
        return None


def main():
    sdist, out, names = sys.argv[1], sys.argv[2], set(sys.argv[3:])
    with open(sdist, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    if digest != SDIST_SHA256:
        sys.exit(f"{sdist} has sha256 {digest}, wanted is {SDIST_SHA256}")
    os.makedirs(out, exist_ok=True)
    count = 0
    with tarfile.open(sdist) as archive:
        for member in archive:
            folder, _, file = member.name.rpartition("/")
            name, _, ending = file.rpartition(".")
            if not folder.endswith(FOLDER.rstrip("/")) or ending != "jinja" or (names and name not in names):
                continue
            print(name)
            raw = archive.extractfile(member).read()
            with open(os.path.join(out, file), "wb") as kept:
                kept.write(raw)
            texts = [render(raw.decode(), chat) for chat in CHATS]
            with open(os.path.join(out, name + ".json"), "w") as golden:
                json.dump([{"chat": chat, "text": text} for chat, text in zip(CHATS, texts)], golden, indent=1)
                golden.write("\n")
            count += 1
    print(f"{count} templates, jinja2 {jinja2.__version__}")


if __name__ == "__main__":
    main()
