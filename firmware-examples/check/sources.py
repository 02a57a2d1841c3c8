"""Sources of Debian and Ubuntu packages, by apt, from where this machine gets its packages. Lists and downloads stay in
the build folder: the machine's own apt is not changed."""

import re
import shutil
from pathlib import Path

from commands import Failed, fetched, ran

LISTS = Path("/etc/apt")


def source_entries():
    """The machine's own entries as `deb-src`, in the form of deb822."""
    entries = []
    for path in sorted(LISTS.glob("sources.list.d/*.sources")):
        for block in re.split(r"\n\s*\n", path.read_text()):
            if re.search(r"(?m)^Types:.*\bdeb\b", block):
                entries.append(re.sub(r"(?m)^Types:.*$", "Types: deb-src", block).strip())
    one_line = [LISTS / "sources.list", *sorted(LISTS.glob("sources.list.d/*.list"))]
    for path in one_line:
        for line in path.read_text().splitlines() if path.exists() else []:
            if found := re.match(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+(.+)$", line.strip()):
                options, uri, suite, components = found.groups()
                signed = re.search(r"signed-by=(\S+)", options or "")
                entries.append("\n".join(filter(None, [
                    "Types: deb-src", f"URIs: {uri}", f"Suites: {suite}", f"Components: {components}",
                    f"Signed-By: {signed[1]}" if signed else ""])))
    # Other people's repositories have neither of the packages, and some have no sources at all.
    return [entry for entry in entries if re.search(r"(?mi)^URIs:.*(debian|ubuntu)", entry)]


def fetch(folder, packages):
    """Unpacks the sources of the packages below the folder, each in a folder of its own name."""
    missing = [package for package in packages if not (folder / package / "unpacked").exists()]
    if not missing:
        return
    apt = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial", "entries"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "entries/ours.sources").write_text("\n\n".join(source_entries()) + "\n")
    options = [f"-oDir::Etc::sourcelist=/dev/null", f"-oDir::Etc::sourceparts={apt / 'entries'}",
               f"-oDir::State::lists={apt / 'lists'}", f"-oDir::Cache={apt / 'cache'}", "-oAPT::Sandbox::User=root"]
    try:
        fetched("the lists of source packages", ["apt-get", "update", *options, "-qq", "--error-on=any"])
    except Failed as failed:
        # Perhaps not those that are needed.
        print(failed, flush=True)
    for package in missing:
        place = apt / package
        place.mkdir(exist_ok=True)
        fetched(f"the source of {package}", ["apt-get", "source", *options, "-qq", "--download-only", package], cwd=place)
        # What an earlier attempt left half.
        shutil.rmtree(folder / package, ignore_errors=True)
        ran(["dpkg-source", "--no-check", "-x", next(place.glob("*.dsc")), folder / package])
        (folder / package / "unpacked").touch()
