"""Write README.md of this folder from the results files beside it.

    python benchmarks/report.py [folder]

No number in that text is typed: the tables, the targets that are reached and those that are not,
and the list of what others are better at come from the rows. What has no file is "not measured".
"""

import json
import math
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).parent
BUNDLED = HERE.parent / "ftlearn" / "bundled" / "speed.json"
NAMES = {
    "plain": "plain loop",
    "by_hand": "by hand",
    "fastai": "fastai",
    "lightning": "Lightning",
    "trainer": "Trainer",
    "keras": "Keras",
    "ftlearn": "ftlearn",
    "bare": "bare forward pass",
}
PEERS = ("plain", "fastai", "lightning", "trainer", "keras")
VIEWS = {  # title: precision of ftlearn's rows, and of the peers'
    "as each comes": ("default", "fp32"),
    "all in fp32": ("fp32", "fp32"),
    "all in bf16": ("bf16", "bf16"),
}
FIRST = {("head", 5): 11, ("head", 20): 35, "last": 2.5, "full": 1.4}
EQUAL = {("head", 5): 3.5, ("head", 20): 14, "last": 2, "full": 1.0}
TARGETS = {"as each comes": FIRST, "all in fp32": EQUAL, "all in bf16": EQUAL}
STAGES = ("head", "last", "full")
ASKED = [(stage, epochs) for epochs in (5, 20) for stage in STAGES]
MEASURES = {"seconds": "s", "process_seconds": "s with imports", "peak_mb": "MB"}
MISSING = "not measured"

TEXT = """# Benchmarks

One job in every library, side by side: a torchvision ResNet18 that was pretrained on letters
learns scikit-learn's 1,797 handwritten digits, as RGB pictures of 64 x 64. This text is written by
`python benchmarks/report.py` from the results files in `benchmarks/`.

{setting}

## As each comes

ftlearn with what `fast` and `mixed_precision` pick, the peers at their documented default, which
is fp32 on a CPU for all of them. Seconds are medians. "Times ftlearn" is the ratio within a repeat.
A single run has no bracket. "Images" counts what went through the first convolution. The peak is
that of the whole process, imports included. A mean accuracy that is further from ftlearn's than
1.96 standard errors of the difference of two scores on {scored} pictures ({high} points at 0.99,
{low} at 0.97) is marked with *{marked}.

{first}

## At equal precision

{equal}

## Where ftlearn loses

Every job and measure in which some peer is ahead, from the rows.

{losses}

## What is compared, and what is not

- Every arm gets the same initial weights and a zero head, the same pictures in memory, batches of
  64, AdamW with the same rate and decay, and scores the last 597 pictures after every epoch. The
  order of the pictures is each library's own. The head's rate is the best of four that were tried
  with ftlearn's arm on these very pictures; the other two were not tuned.
- "By hand" is no peer: a loop in torch alone that does what ftlearn does. What a library saves over
  it is lines, not seconds.
- Each is written as its documentation does it (`arms.py`). What is not a default favours the peer:
  no worker processes, which cost more than they save on 1,200 pictures in memory; no progress
  bars, loggers, checkpoints, sanity check (Lightning) or gradient clipping (Trainer); fastai does
  not drop the last batch, and uses torch's AdamW in place of its own.
- BatchNorm of frozen layers is part of what a library does: the tutorial's loop, the Trainer and
  Keras let its statistics move ("live"), fastai also trains its weights, Lightning's example and
  ftlearn hold them ("constant"). Live statistics adapt to the new pictures, which can raise the
  accuracy of a head. They also forbid what ftlearn gains its time with.
- fastai's bf16 is for CUDA only, and Keras' is for its own layers: both arms use torch's autocast.
- The ftlearn arms in fp32 and bf16 use the fused optimizer and, where `fast` finds that it pays,
  channels last, which change no precision. Other libraries could be given both, and a cache of
  features, by hand.
- Augmentation would rule the cache out, or ask for several stored views; nothing here augments.
- One network, one data set, one machine, one batch size, and {libraries}.

## Targets

Speed is the seconds of the fastest peer over ftlearn's, within the same repeat: the median, and
from lowest to highest where there is more than one run.
The lines on `fit` and on the import have quartiles. Accuracy is the mean of ftlearn's and of that
peer's scores.

{targets}

## The limits of this machine

{limits}

## How to run it again

`make bench` builds an environment with the peers (`.venv-bench`) and runs everything on a quiet
machine. `python benchmarks/peers.py --minutes 45` does as much of the comparison as fits and goes
on where it stopped; rows of other versions or other hardware are refused. `--toy` shows in some
minutes that all of it runs.

## Other measurements

{others}
"""


def read(folder, name):
    """A results file, or an empty dictionary."""
    path = Path(folder) / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def table(header, rows):
    """A table in Markdown; numbers to the right."""
    rule = ["---" if i == 0 else "---:" for i in range(len(header))]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def number(value):
    """Three significant digits, or all of an integer's."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or value == 0 or not math.isfinite(value):
        return f"{value:,}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


class Rows:
    """The measured rows, by job and arm."""

    def __init__(self, rows):
        self.all = [row for row in rows if "error" not in row]
        self.failed = [row for row in rows if "error" in row]
        self.jobs = sorted({(r["stage"], r["epochs"]) for r in self.all}, key=self._place)

    @staticmethod
    def _place(job):
        return job[1], STAGES.index(job[0])

    def asked(self):
        """The jobs that targets speak of, measured or not, and all others that were measured."""
        return sorted({*ASKED, *self.jobs}, key=self._place)

    def of(self, arm, precision, job):
        """Rows of an arm on a job, by repeat."""
        found = [r for r in self.all if (r["arm"], r["precision"]) == (arm, precision)]
        return {r["repeat"]: r for r in found if (r["stage"], r["epochs"]) == job}

    def values(self, arm, precision, job, what):
        """One measurement of these rows."""
        return [row[what] for row in self.of(arm, precision, job).values()]

    def ratio(self, one, other, what="seconds"):
        """One's measurement over the other's within a repeat: median, lowest, highest; or None."""
        a, b = self.of(*one), self.of(*other)
        ratios = [a[repeat][what] / b[repeat][what] for repeat in sorted(a.keys() & b.keys())]
        return (statistics.median(ratios), min(ratios), max(ratios)) if ratios else None

    def fastest(self, view, job):
        """The peer with the smallest ratio to ftlearn, and that ratio."""
        ours, theirs = VIEWS[view]
        ratios = {p: self.ratio((p, theirs, job), ("ftlearn", ours, job)) for p in PEERS}
        ratios = {peer: ratio for peer, ratio in ratios.items() if ratio}
        best = min(ratios, key=lambda peer: ratios[peer][0], default=None)
        return best, ratios.get(best)


def job_name(job):
    """A job in words."""
    return f"{job[0]}, {job[1]} epochs"


def noise(one, other, pictures):
    """1.96 standard errors of the difference of two scores on this many pictures each."""
    variances = [score * (1 - score) / pictures for score in (one, other)]
    return 1.96 * math.sqrt(sum(variances))


def spread(values, digits=2):
    """Median and quartiles."""
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) < 2:
        return middle
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle} ({low:.{digits}f} to {high:.{digits}f})"


def times(ratio):
    """A ratio as text; that of a single repeat has no range."""
    if ratio is None:
        return MISSING
    middle, low, high = ratio
    return f"{middle:.2f}" if low == high else f"{middle:.2f} ({low:.2f} to {high:.2f})"


def comparison(rows, view, scored):
    """One line per job and arm."""
    ours, theirs = VIEWS[view]
    arms = [("ftlearn", ours), ("by_hand", ours), *[(peer, theirs) for peer in PEERS]]
    return [
        [job_name(job), NAMES[arm], *facts(rows, (arm, precision, job), ours, scored)]
        for job in rows.jobs
        for arm, precision in arms
        if rows.of(arm, precision, job)
    ]


def facts(rows, key, ours, scored):
    """What a line of the comparison says behind the names."""
    found, base = rows.of(*key), ("ftlearn", ours, key[2])
    scores, bn = rows.values(*key, "accuracy"), sorted({r["bn"] for r in found.values()})
    mean, reference = statistics.mean(scores), rows.values(*base, "accuracy")
    against = statistics.mean(reference) if reference else mean
    clear = abs(mean - against) > noise(mean, against, scored)
    span = f" ({min(scores):.4f} to {max(scores):.4f})" if len(scores) > 1 else ""
    return [
        spread(rows.values(*key, "seconds")),
        "1" if key == base else times(rows.ratio(key, base)),
        f"{mean:.4f}{span}" + "*" * clear,
        "/".join(bn),
        number(round(statistics.median(rows.values(*key, "peak_mb")))),
        number(round(statistics.median(rows.values(*key, "forward_images")))),
        len(found),
    ]


HEADER = ["job", "arm", "seconds (quartiles)", "times ftlearn (lowest to highest)"]
HEADER += ["accuracy (lowest to highest)", "BatchNorm", "peak MB", "images"]


def compared(rows, view, scored):
    """The table of a view."""
    lines = comparison(rows, view, scored)
    return table([*HEADER, "n"], lines) if lines else MISSING


def verdict(value, target, at_least=True):
    """Whether a target is reached."""
    if value is None:
        return MISSING
    return "reached" if (value >= target if at_least else value <= target) else "not reached"


def speed_targets(rows):
    """A line per job, measured or not: the fastest peer against what was asked for."""
    for view, wanted in TARGETS.items():
        for job in rows.asked():
            target = wanted.get(job, wanted.get(job[0]))
            if target is None:
                continue
            peer, ratio = rows.fastest(view, job)
            ours, theirs = VIEWS[view]
            keys = ("ftlearn", ours, job), (peer, theirs, job)
            scores = [rows.values(*key, "accuracy") for key in keys] if peer else []
            accuracy = " and ".join(f"{statistics.mean(s):.3f}" for s in scores)
            what = f"{view}: {job_name(job)}, against {NAMES.get(peer, 'the peers')}"
            got = verdict(ratio and ratio[0], target)
            yield [what, f"at least {target}", times(ratio), accuracy, got]


def limit_targets(rows, loop, imports):
    """A line per limit: one forward pass, the plain loop, torch's import."""
    for precision in ("fp32", "bf16"):
        for job in rows.asked():
            if job[0] == "head":
                keys = ("ftlearn", precision, job), ("bare", precision, job)
                ratio = rows.ratio(*keys)
                what = f"{precision}: {job_name(job)}, over one bare forward pass"
                got = verdict(ratio and ratio[0], 1.15, at_least=False)
                yield [what, "at most 1.15", times(ratio), "", got]
    found = loop.get("arms", {}).get("fit", {}).get("over_plain")
    yield stored_limit("`fit` over a plain loop, 100 microseconds a step", found)
    found = imports.get("over_torch", {}).get("ftlearn")
    yield stored_limit("`import ftlearn` over torch and torchvision", found)


def stored_limit(what, found, target=1.10):
    """A line from a stored ratio."""
    ratio = (found["median"], *found["quartiles"]) if found else None
    return [
        what,
        f"at most {target:.2f}",
        times(ratio),
        "",
        verdict(ratio and ratio[0], target, False),
    ]


def losses(rows, scored):
    """Everything in which a peer is ahead, a line each."""
    for view, (ours, theirs) in VIEWS.items():
        for job in rows.jobs:
            mine = ("ftlearn", ours, job)
            others = [("by_hand", ours), *[(peer, theirs) for peer in PEERS]]
            peers = [(*other, job) for other in others if rows.of(*other, job)]
            for what, unit in MEASURES.items() if rows.of(*mine) else ():
                ahead = [p for p in peers if (r := rows.ratio(p, mine, what)) and r[0] < 1]
                yield from behind(rows, view, job, mine, ahead, what, unit)
            if rows.of(*mine):
                yield from less_accurate(rows, view, job, mine, peers, scored)


def outgrown(rows):
    """Where the data grows, and another is ahead."""
    for (stage, times), job in sorted(growths(rows).items()):
        mine = job.get("ftlearn", {}).get("seconds", 0)
        ahead = {arm: row["seconds"] for arm, row in job.items() if row["seconds"] < mine}
        if ahead:
            others = ", ".join(f"{NAMES[arm]} {number(s)} s" for arm, s in ahead.items())
            yield f"- growth, {stage}, {times} times the data: {others}; ftlearn {number(mine)} s."


def behind(rows, view, job, mine, ahead, what, unit):
    """A line on the peers that need less."""

    def text(key):
        return f"{number(statistics.median(rows.values(*key, what)))} {unit}"

    if ahead:
        others = ", ".join(f"{NAMES[key[0]]} {text(key)}" for key in ahead)
        yield f"- {view}, {job_name(job)}: {others}; ftlearn {text(mine)}."


def less_accurate(rows, view, job, mine, peers, scored):
    """A line on the peers with a higher mean accuracy."""
    means = {key: statistics.mean(rows.values(*key, "accuracy")) for key in (mine, *peers)}
    better = [key for key in peers if means[key] > means[mine]]
    if better:
        clear = [means[k] - means[mine] > noise(means[k], means[mine], scored) for k in better]
        others = ", ".join(
            f"{NAMES[k[0]]} {means[k]:.4f}{'*' * c}" for k, c in zip(better, clear, strict=True)
        )
        yield f"- {view}, {job_name(job)}, accuracy: {others}; ftlearn {means[mine]:.4f}."


def limits(rows, results):
    """The bare forward pass and the matrix product."""
    names = dict(matrix_fp32_gflops="products in fp32, thousand million operations/s")
    names |= dict(matrix_bf16_gflops="products in bf16, thousand million operations/s")
    names |= dict(copy_gbytes="copy in memory, GB/s read and written")
    stored = results.get("limits", {})
    lines = [[text, number(stored[name])] for name, text in names.items() if name in stored]
    for precision in ("fp32", "bf16"):
        found = [r for r in rows.all if (r["arm"], r["precision"]) == ("bare", precision)]
        if found:
            what = (
                f"forward pass over {found[0]['forward_images']:,} images in {precision}, seconds"
            )
            lines.append([what, spread([r["seconds"] for r in found], 3)])
    return table(["limit", "measured"], lines) if lines else MISSING


def cell(value):
    """A value of a results file as text."""
    if isinstance(value, dict) and "median" in value:
        low, high = value.get("quartiles", (None, None))
        return number(value["median"]) + (
            "" if low is None else f" ({number(low)} to {number(high)})"
        )
    if isinstance(value, dict):
        return ", ".join(f"{key} {cell(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return f"{len(value)} values" if len(value) > 4 else ", ".join(map(cell, value))
    return MISSING if value is None else number(value)


def grid(entries):
    """Dictionaries with common keys as a table, each behind its name."""
    columns = list(dict.fromkeys(key for entry in entries.values() for key in entry))
    words = [column.replace("_", " ") for column in columns]
    lines = [
        [name, *[cell(e[c]) if c in e else "" for c in columns]] for name, e in entries.items()
    ]
    return table(["", *words], lines)


def is_grid(value):
    """Whether a value is a dictionary of dictionaries that are no ratios."""
    inner = value.values() if isinstance(value, dict) else ()
    return bool(inner) and all(isinstance(v, dict) and "median" not in v for v in inner)


def section(title, results):
    """A results file of any form: its single values as a list, its dictionaries as tables."""
    if not results:
        return f"### {title}\n\n{MISSING}"
    lists, tables = [], []
    for name, value in results.items():
        words = name.replace("_", " ")
        if name in ("environment", "versions", "limits"):
            continue
        if is_grid(value):
            tables.append(f"{words.capitalize()}:\n\n{grid(value)}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lists.append(f"- {words}: {len(value)}, in the file")
            tables += [grown(value), bill(value)]
        else:
            lists.append(f"- {words}: {cell(value)}")
    parts = [f"### {title}", environment(results), "\n".join(lists), *tables]
    return "\n\n".join(filter(None, parts))


def growths(rows):
    """The rows on growth, {(stage, times the data): {arm: row}}."""
    found = {}
    for row in rows:
        if row.get("part") == "growth":
            found.setdefault((row["stage"], row["times"]), {})[row["arm"]] = row
    return found


def grown(rows):
    """Seconds of every arm at every size, one run each."""
    found = growths(rows)
    arms = list(dict.fromkeys(arm for job in found.values() for arm in job))
    lines = [
        [
            f"{stage}, {times} times the data",
            *[number(job[a]["seconds"]) if a in job else "" for a in arms],
        ]
        for (stage, times), job in sorted(found.items())
    ]
    header = ["seconds, one run each", *[NAMES[arm] for arm in arms]]
    return "Growth:\n\n" + table(header, lines) if lines else ""


def bill(rows):
    """What the pretraining cost, which none of the times above contains."""
    found = [row for row in rows if row.get("part") == "pretraining"]
    said = "The pretraining behind all of them: {updates:,} updates, {seconds:.0f} seconds."
    return said.format(**found[0]) if found else ""


def environment(results):
    """Hardware, threads and versions in a sentence."""
    found = dict(results.get("environment", {}))
    processor, threads, gpu = [found.pop(n, None) for n in ("processor", "threads", "gpu")]
    versions = ", ".join(f"{name.replace('_', '-')} {v}" for name, v in found.items() if v)
    where = f"{processor}, threads: {threads}, GPU: {gpu or 'none'}"
    return f"Measured on: {where}; {versions}." if found else MISSING


OTHERS = {
    "loop": "What a loop costs around a short step",
    "imports": "What an import costs",
    "growth": "How cost grows with the data",
    "distillation": "What a teacher costs",
    "gpu": "On a GPU",
}


def render(folder=HERE):
    """The text, from the files of a folder."""
    results, others = read(folder, "peers"), {name: read(folder, name) for name in OTHERS}
    rows, scored = Rows(results.get("rows", [])), 597
    took = sum(row["process_seconds"] for row in rows.all) / 60
    counted = f"{len(rows.all)} runs, {took:.0f} minutes, {len(rows.failed)} failed."
    goals = [*speed_targets(rows), *limit_targets(rows, others["loop"], others["imports"])]
    first, *equal = [compared(rows, view, scored) for view in VIEWS]
    names = "the versions above" if rows.all else "one set of versions"
    return TEXT.format(
        setting=f"{environment(results)} {counted}" if rows.all else f"The comparison: {MISSING}.",
        targets=table(["target", "asked", "measured", "accuracy", ""], goals),
        limits=limits(rows, results),
        high=f"{100 * noise(0.99, 0.99, scored):.1f}",
        low=f"{100 * noise(0.97, 0.97, scored):.1f}",
        scored=scored,
        marked="" if "*" in first + "".join(equal) else "; none is",
        first=first,
        equal="\n\n".join(f"{v.capitalize()}:\n\n{t}" for v, t in zip(list(VIEWS)[1:], equal)),
        libraries=names,
        losses="\n".join([*losses(rows, scored), *outgrown(others["growth"].get("rows", []))])
        or (MISSING if not rows.all else "Nothing."),
        others="\n\n".join(section(title, others[name]) for name, title in OTHERS.items()),
    )


def summary(folder=HERE):
    """What lesson 19 shows of the comparison: a row per view, job and arm; None without rows."""
    results, loop, imports = [read(folder, name) for name in ("peers", "loop", "imports")]
    rows = Rows(results.get("rows", []))
    arms = [(view, *VIEWS[view], job, arm) for view in VIEWS for job in rows.jobs for arm in NAMES]
    lines = [short(rows, *arm) for arm in arms]
    head = {name: results.get(name) for name in ("script", "environment", "limits")}
    fit = loop.get("arms", {}).get("fit", {}).get("over_plain")
    head |= dict(fit_over_plain=fit, import_over_torch=imports.get("over_torch", {}).get("ftlearn"))
    return head | {"rows": [line for line in lines if line]} if rows.all else None


def short(rows, view, ours, theirs, job, arm):
    """Seconds, lowest and highest, the ratio to ftlearn's and the mean accuracy of an arm."""
    own = arm in ("ftlearn", "by_hand")
    key, mine = (arm, ours if own else theirs, job), ("ftlearn", ours, job)
    if arm == "bare" and view == "as each comes":
        key = ("bare", "bf16", job)  # what ftlearn picks where it pays
    seconds, ratio = sorted(rows.values(*key, "seconds")), rows.ratio(key, mine)
    if not ratio:
        return None
    scores = [score for score in rows.values(*key, "accuracy") if score is not None]
    accuracy = round(statistics.mean(scores), 4) if scores else None
    facts = dict(seconds=round(statistics.median(seconds), 3), low=seconds[0], high=seconds[-1])
    facts |= dict(times=[round(r, 3) for r in ratio], accuracy=accuracy, n=len(seconds))
    statistics_of = "/".join(sorted({row["bn"] for row in rows.of(*key).values()}))
    return dict(view=view, stage=job[0], epochs=job[1], arm=NAMES[arm], **facts, bn=statistics_of)


def main(folder=HERE):
    """Write the text, and the summary that ships with the lesson."""
    (Path(folder) / "README.md").write_text(render(folder), "utf-8")
    if short_form := summary(folder):
        rows = ",\n".join(json.dumps(row) for row in short_form.pop("rows"))
        text = json.dumps(short_form, indent=1)[:-2] + f',\n "rows": [\n{rows}\n]}}\n'
        BUNDLED.write_text(text, "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
