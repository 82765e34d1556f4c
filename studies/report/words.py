"""What the report says in plain words; every text of the study is escaped by ``Markup.format``."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup

from aesearch.studies.report.look import count, spelled
from aesearch.studies.report.words_evaluation import retrained, scale
from aesearch.studies.results.evaluation import Evaluation
from aesearch.studies.results.output_files import SPECIFICATION
from aesearch.studies.results.records import StudySnapshot
from aesearch.studies.results.summary import Summary, TrialSummary
from aesearch.studies.results.summary_text import NO_KNEE, edge_text
from aesearch.studies.results.text import parameter_text, value_text


@dataclass(frozen=True)
class Tile:
    """One number that the reader should take away, with what it is."""

    label: str
    value: str
    note: str
    kind: str = ""


def status(found: Summary) -> tuple[str, str]:
    """Say how far the study is: a word for the style sheet, and a few for the reader."""
    finished = found.trials.finished
    if not found.finished and found.winner is None:
        running = f", {found.trials.running} running" if found.trials.running else ""
        return "open", f"In mid-search: {finished} of {found.n_trials} trials finished{running}"
    if found.winner is None:
        return "open", f"{count(finished, 'trial')} finished, nothing chosen yet"
    if found.retrain is None or found.retraining:
        return "open", "Search finished, retraining not finished"
    if not found.finished:
        return "open", f"Stopped early: {finished} of {found.n_trials} trials finished"
    return "done", f"Finished: {count(found.n_trials, 'trial')}"


def subtitle(snapshot: StudySnapshot) -> str:
    """Name the images and their number."""
    facts = snapshot.facts
    parts = []
    if facts.get("dataset"):
        parts.append(str(facts["dataset"]))
    if facts.get("n_images"):
        parts.append(f"{int(facts['n_images']):,} images for the search")
    if facts.get("n_test"):
        parts.append(f"{int(facts['n_test']):,} for the test")
    if facts.get("image_shape"):
        channel, height, width = facts["image_shape"]
        shade = {1: "grey", 3: "colour"}.get(int(channel), f"{channel} channels")
        parts.append(f"{height} x {width} pixels, {shade}")
    return " · ".join(parts)


def lead(snapshot: StudySnapshot, found: Summary, evaluation: Evaluation | None) -> list[Markup]:
    """Tell what was searched and what was found, in a few short paragraphs."""
    paragraphs = [_searched(snapshot, found), _won(found), _edges(found), _ties(found)]
    paragraphs.append(_front(found))
    paragraphs += [retrained(found, evaluation), scale(snapshot, evaluation)]
    return [paragraph for paragraph in paragraphs if paragraph]


def _searched(snapshot: StudySnapshot, found: Summary) -> Markup:
    counts, folds = found.trials, snapshot.spec.search.folds
    finished = counts.finished
    cleans = found.denoising or found.has_noisy
    aim = "cleans these images" if cleans else "gives these images back"
    judged = (
        f"each trained and judged on one of {folds} folds of the images first, and on all of them "
        "where it did well there"
        if snapshot.spec.scores_delivery
        else f"each trained and judged on {folds} folds of the images"
    )
    text = Markup(
        "aesearch looks for the autoencoder that {} best. It has tried <strong>{} of {} "
        "configurations</strong>, {}"
    ).format(aim, finished, found.n_trials, judged)
    if finished == found.n_trials:
        text = Markup(
            "aesearch looked for the autoencoder that {} best. It tried <strong>{}</strong>, {}"
        ).format(aim, count(finished, "configuration"), judged)
    ends = []
    if counts.pruned:
        were = "was" if counts.pruned == 1 else "were"
        ends.append(f"{counts.pruned} {were} pruned as hopeless")
    if found.unstable:
        ends.append(f"{len(found.unstable)} set aside as unstable")
    if counts.failed:
        ends.append(f"{counts.failed} failed")
    return text + (Markup("; {}.").format(_joined(ends)) if ends else Markup("."))


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def described(trial: TrialSummary) -> str:
    """Put a configuration into one phrase."""
    params = {k: v for k, v in trial.params.items() if k != "architecture"}
    kind = f"a {trial.architecture} network"
    pairs = [f"{spelled(name)} {parameter_text(value)}" for name, value in params.items()]
    return f"{kind} with {_joined(pairs)}" if pairs else kind


def _won(found: Summary) -> Markup:
    trial = found.winner or found.best
    if trial is None:
        return Markup("No trial is complete and stable yet, so there is no winner.")
    error = "" if trial.standard_error is None else " ± standard error"
    said = "The winner is" if found.winner else "Best so far is"
    text = Markup(
        "{} <strong>trial {}</strong>: {}. On images that it did not see in training{} its mean "
        "squared error per pixel is <strong>{}</strong> (mean{} over {})."
    ).format(
        said,
        trial.number,
        described(trial),
        _corrupted(found),
        value_text(trial.value, trial.standard_error),
        error,
        count(len(trial.fold_scores), "fold"),
    )
    best = found.best
    if found.winner and best is not None and best.number != trial.number:
        text += Markup(
            " It was chosen by the rule {} although trial {} has the lowest mean, {}."
        ).format(
            found.selection,
            best.number,
            value_text(best.value, best.standard_error),
        )
    return text


def _corrupted(found: Summary) -> str:
    noise = found.denoising
    if found.has_noisy:
        return ", noisy and to be given back clean,"
    if noise is None:
        return ""
    kind = noise.corruption.replace("-", " ")
    return f", corrupted by {kind} {noise.level:g} and to be given back clean,"


def _edges(found: Summary) -> Markup:
    sentences = [edge_text(edge) for edge in found.edges]
    return Markup("{}.").format("; ".join(sentences)) if sentences else Markup("")


def _ties(found: Summary) -> Markup:
    ties = found.indistinguishable
    if found.winner is None:
        return Markup("")
    if ties is None:
        return Markup("Whether other trials can be told apart from it was not tested.")
    if not ties.n_compared:
        return Markup("There is no other complete, stable trial to compare it with.")
    how = Markup('<span class="aside">({}, each by itself, {} {:g})</span>')
    if not ties.trials:
        told = how.format(ties.test, "p <", ties.alpha)
        return Markup(
            "Every other complete, stable trial can be told apart from it by these folds {}."
        ).format(told)
    told = how.format(ties.test, "p ≥", ties.alpha)
    numbers = [str(tie.number) for tie in ties.trials]
    if len(numbers) == 1:
        return Markup(
            "<strong>Trial {}</strong> cannot be told apart from it by these folds {}."
        ).format(numbers[0], told)
    shown = numbers if len(numbers) <= 12 else [*numbers[:12], f"{len(numbers) - 12} more"]
    return Markup(
        "<strong>{} other trials</strong> cannot be told apart from it by these folds {}: {}."
    ).format(len(numbers), told, _joined(shown))


def _front(found: Summary) -> Markup:
    front = found.front
    if front is None:
        return Markup("")
    numbers = [str(row.number) for row in front.trials]
    shown = numbers if len(numbers) <= 12 else [*numbers[:12], f"{len(numbers) - 12} more"]
    text = Markup("On the Pareto front of {} {}, the smallest first: {}.").format(
        _joined([spelled(name) for name in front.objectives]),
        "lies one trial" if len(numbers) == 1 else f"lie {len(numbers)} trials",
        _joined(shown),
    )
    if found.selection == "knee" and front.knee is None:
        text += Markup(" {}.").format(NO_KNEE[0].upper() + NO_KNEE[1:])
    return text


def tiles(snapshot: StudySnapshot, found: Summary, evaluation: Evaluation | None) -> list[Tile]:
    """Give the few numbers that stand at the top."""
    shown = []
    trial = found.winner or found.best
    if trial is not None:
        shown.append(
            Tile(
                "cross-validated MSE",
                value_text(trial.value, trial.standard_error),
                f"trial {trial.number}, {count(len(trial.fold_scores), 'fold')}",
                "winner",
            )
        )
    test = None if found.retrain is None else found.retrain.test_mse
    if test is not None:
        seeds = count(test.n_seeds, "seed")
        what = "test MSE, clean images" if found.denoising else "test MSE"
        shown.append(Tile(what, value_text(test.mean, test.sd), seeds, "accent"))
    row = None
    if evaluation is not None:
        row = evaluation.under_own_corruption(snapshot.spec.training)
    if row is not None:
        note = f"from {value_text(row.input_mse)} with noise"
        shown.append(Tile("test MSE, cleaned images", value_text(row.mse), note, "baseline"))
    elif evaluation is not None:
        pca = evaluation.pca
        note = count(pca.encoding_dim, "component")
        shown.append(Tile("PCA, test MSE", value_text(pca.mse), note, "baseline"))
    ties = found.indistinguishable
    if ties is not None and ties.n_compared:
        n_ties = len(ties.trials)
        shown.append(
            Tile(
                "as good within the noise",
                str(n_ties),
                f"of {count(ties.n_compared, 'other complete trial')}",
            )
        )
    return shown


def reproducing_commands(snapshot: StudySnapshot) -> list[str]:
    """Write the commands that give a study again from its specification, one after another.

    There are several where more trials were asked for in the middle of a generation: those
    after it were suggested from other results than if all had been asked for at once.
    """
    generation_size = snapshot.spec.search.generation_size
    sizes = [lease.size for lease in snapshot.leases if lease.kind == "search"]
    ends = accumulate(sizes)
    command = f"aesearch run --spec {SPECIFICATION}"
    begun = [
        f"{command} --trials {end}"
        for end, size in zip(ends, sizes[:-1], strict=False)
        if size != generation_size
    ]
    return [*begun, command]
