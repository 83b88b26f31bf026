"""The page that compares ftlearn with its peers: tables and lists made from peers.csv."""

import csv
import re
from pathlib import Path

import ftlearn

DOCS = Path(__file__).resolve().parents[1]
SYSTEMS = {  # as in the head of peers.csv: the letters above a column, and what was read
    "fastai": ("FA", "fastai 2.8"),
    "timm": ("TM", "timm"),
    "Lightning": ("PL", "PyTorch Lightning with Fabric"),
    "Transformers": ("HF", "the Trainer of Transformers, with PEFT and accelerate"),
    "torchvision": ("TV", "torchvision's reference scripts"),
    "Keras": ("KE", "Keras 3 with KerasHub"),
    "torchdistill": ("TD", "torchdistill"),
    "torchtune": ("TT", "torchtune, which is no longer maintained"),
    "Composer": ("CM", "Composer"),
    "d2l": ("D2", "d2l, the package of *Dive into Deep Learning*"),
    "PyTorch tutorials": ("PT", "the official PyTorch tutorials"),
    "lightning-flash": ("FL", "lightning-flash, which is no longer maintained"),
    "AutoGluon": ("AG", "AutoGluon"),
}
TOPICS = {  # the first row of each table
    "Pretrained model by name": "Pretrained models and their files",
    "Freeze by name/module": "Freezing, rates and when to stop",
    "MixUp / CutMix": "Augmentation, losses and averages",
    "Hinton KD": "Distillation",
    "Linear probe / feature cache": "Probes, search and looking inside",
    "AMP / bf16": "Speed, resuming and many machines",
    "PTQ / QAT": "Smaller models, other methods, other tasks",
    "NaN watchdog": "Checks, evidence and notebooks",
}
BREAK = r" / | · "  # between the parts of a feature: "MixUp / CutMix"


def rows():
    """A dictionary per feature, as peers.csv has them."""
    text = (DOCS / "peers.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def parts(names, cell):
    """The letter of each part of a feature: ["y", "n"] for "y/n"; a single one holds for all."""
    if cell.endswith(" only"):
        return ["y" if name == cell.removesuffix(" only") else "n" for name in names]
    letters = re.split("[/·]", _short(cell))
    if not set(letters) <= set("ypn?–") or len(letters) not in (1, len(names)):
        raise ValueError(f"peers.csv: {cell!r} is not one of y, p, n, ? and – for each of {names}.")
    return letters * (len(names) // len(letters))


def verdicts(row):
    """(part, ftlearn's letter, {letter: peers}) for each part of a feature."""
    cells = [row[system] for system in ("ftlearn", *SYSTEMS)]
    apart = any(re.search("[/·]", _short(cell)) for cell in cells)
    names = re.split(BREAK, row["feature"]) if apart else [row["feature"]]
    for name, ours, *theirs in zip(names, *(parts(names, cell) for cell in cells), strict=True):
        said = {}
        for system, letter in zip(SYSTEMS, theirs, strict=True):
            said.setdefault(letter, []).append(system)
        yield name, ours, said


def told(wanted):
    """(part, row, peers by letter) wherever `wanted(our letter, peers by letter)` is true."""
    return [
        (name, row, said)
        for row in rows()
        for name, ours, said in verdicts(row)
        if wanted(ours, said)
    ]


def missing():
    """What a peer has and ftlearn has not."""
    return told(lambda ours, said: ours == "n" and "y" in said)


def partly():
    """What a peer has and ftlearn has in part."""
    return told(lambda ours, said: ours == "p" and "y" in said)


def alone():
    """What ftlearn has and no peer has in full."""
    return told(lambda ours, said: ours == "y" and "y" not in said)


def nobody():
    """What neither ftlearn nor any peer has in full."""
    return told(lambda ours, said: ours in ("n", "p") and "y" not in said)


def _listed(found, note):
    capital = lambda name: (
        name if "." in name or name[1:2].isupper() else name[0].upper() + name[1:]
    )
    return "\n".join(f"- **{capital(name)}**: {note(row, said)}" for name, row, said in found)


def _peers(row, said):
    return ", ".join(said["y"])


def _peers_and_part(row, said):
    rest = row["where"].partition(": ")[2].partition("; ")[2]
    return f"{_peers(row, said)}. Here: {_marked(rest)}."


def _others(row, said):
    some = f"in part also {', '.join(said['p'])}" if "p" in said else "none of the others"
    return some + (f" (not checked: {', '.join(said['?'])})" if "?" in said else "")


def home(name):
    """Where a name is defined: "ftlearn.runs.follow" for "ftlearn.follow"; empty for the package."""
    first, _, rest = name.removeprefix("ftlearn").removeprefix(".").partition(".")
    module = ftlearn._WHERE.get(first)
    return f"ftlearn.{module}.{first}" if module else f"ftlearn.{first}.{rest}" if rest else ""


def _marked(text):
    "Names of ftlearn as links into the reference, files of tests as code."
    text = re.sub(r"tests/\w+\.py", r"`\g<0>`", text)
    link = lambda m: f"{{py:obj}}`{m[0]} <{home(m[0])}>`" if home(m[0]) else f"`{m[0]}`"
    return re.sub(r"ftlearn(?:\.\w+)*", link, text)


def _table(group):
    "One table: a feature per line, a system per column."
    marks = [mark for mark, _ in SYSTEMS.values()]
    lines = ["| | ftlearn | " + " | ".join(marks) + " |", "|---" * (len(marks) + 2) + "|"]
    for row in group:
        cells = [_short(row[system]) for system in SYSTEMS]
        lines.append(f"| {row['feature']} | **{row['ftlearn']}** | {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(cell):
    return cell.split(" (")[0]


def _notes(group):
    "What cells say beside their letters."
    lines = []
    for row in group:
        said = {s: row[s].partition(" (")[2].rstrip(")") for s in SYSTEMS if "(" in row[s]}
        if said:
            lines.append(
                f"{row['feature']}: {', '.join(f'{s} {words}' for s, words in said.items())}."
            )
    return f"\nNotes. {' '.join(lines)}\n" if lines else ""


def _where(group):
    "Which function does it, and which tests show it."
    lines = [f"- {row['feature']}: {_marked(row['where'])}" for row in group if row["where"]]
    if not lines:
        return ""
    return ":::{dropdown} Where it is in ftlearn, and the tests that show it\n" + "\n".join(
        [*lines, ":::", ""]
    )


def groups():
    """{topic: rows}, in the order of peers.csv."""
    found = {}
    for row in rows():
        topic = TOPICS.get(row["feature"]) or list(found)[-1]
        found.setdefault(topic, []).append(row)
    return found


def tables():
    """All tables, each under its topic."""
    pieces = []
    for topic, group in groups().items():
        pieces += [f"### {topic}", "", _table(group), _notes(group), _where(group)]
    return "\n".join(pieces)


def key():
    """What stands above each column."""
    return " · ".join(f"**{mark}** {words}" for mark, words in SYSTEMS.values())


def page():
    """docs/peers.md with its placeholders, `<!-- peers:tables -->` and so on, filled in."""
    made = {
        "key": key(),
        "missing": _listed(missing(), _peers),
        "partly": _listed(partly(), _peers_and_part),
        "alone": _listed(alone(), _others),
        "nobody": ", ".join(name for name, _, _ in nobody()),
        "count": str(len(rows())),
        "tables": tables(),
    }
    said = (DOCS / "peers.md").read_text(encoding="utf-8")
    return re.sub(r"<!-- peers:(\w+) -->", lambda m: made[m[1]], said)
