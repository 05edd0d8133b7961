from __future__ import annotations

from pathlib import Path

import pytest
import sacrebleu

from evaluation.sample import Sampled
from evaluation.tasks.translation import COPY, MEMORY, PER_PAGE, CorpusScore, evaluate, prepare
from tests.evaluation.reference import TransformersEngine, ignore, model_of

ANSWERS = ["The bread is in the hot oven today.", "A child looks at the croissants.", ""]
REFERENCES = ["The bread is in the oven today.", "The child is looking at the croissants.", "Nothing at all is left here."]


def page(name: str, *pairs: tuple[str, str], lang: str = "fr") -> Sampled:
    french, english = "\n".join(one for one, _ in pairs), "\n".join(other for _, other in pairs)
    text, translation = (french, english) if lang == "fr" else (english, french)
    return Sampled(name, "pages", name, lang, text, translation, len(text) + len(translation))


TRAIN = [
    page(
        "t1", ("Le pain est dans le four chaud.", "The bread is in the hot oven."), ("Un enfant vend la pâte.", "A child sells the dough.")
    )
]
HELDOUT = [
    page("p1", *((f"Le voisin numéro {n} est dans le four.", f"Neighbour number {n} is in the oven.") for n in range(9))),
    page("p2", ("Un enfant vend la pâte.", "A child sells the dough."), ("Bref.", "In short, that is all there is.")),
    page("p3", ("Une boulangère apporte le levain.", "A baker brings the sourdough along."), lang="en"),
]


@pytest.mark.parametrize(("metric", "whole"), [("chrf", sacrebleu.corpus_chrf), ("bleu", sacrebleu.corpus_bleu)])
def test_scores_are_sacrebleus(metric: str, whole: object) -> None:
    scorer = CorpusScore(metric, ANSWERS, REFERENCES)
    assert callable(whole)
    assert scorer.score(range(3)) == pytest.approx(whole(ANSWERS, [REFERENCES]).score)
    drawn = [0, 0, 2]
    assert scorer.score(drawn) == pytest.approx(whole([ANSWERS[i] for i in drawn], [[REFERENCES[i] for i in drawn]]).score)
    assert f"version:{sacrebleu.__version__}" in scorer.signature


def test_items_are_new_lines_a_few_of_each_page() -> None:
    items = prepare(TRAIN, HELDOUT, 60)
    assert items == prepare(TRAIN, HELDOUT, 60)
    rows = items.to_pylist()
    for direction in ("fr-en", "en-fr"):
        own = [row for row in rows if row["direction"] == direction]
        assert [sum(row["page"] == name for row in own) for name in ("p1", "p2", "p3")] == [PER_PAGE, 0, 1]
    (row,) = [row for row in rows if row["page"] == "p3" and row["direction"] == "fr-en"]
    assert (row["source"], row["reference"]) == ("Une boulangère apporte le levain.", "A baker brings the sourdough along.")
    assert prepare(TRAIN, HELDOUT, 2).num_rows == 4


def test_memory_answers_with_a_training_line() -> None:
    rows = prepare(TRAIN, HELDOUT, 60).to_pylist()
    assert {row["memory"] for row in rows if row["page"] == "p1" and row["direction"] == "fr-en"} == {"The bread is in the hot oven."}


def test_answers_are_generated_and_scored(tiny_model: Path) -> None:
    engine = TransformersEngine(tiny_model)
    model = model_of(engine, tiny_model, role="chat")
    items = prepare(TRAIN, HELDOUT, 60)
    results, table = evaluate(model, items, 8, 1, ignore)
    assert [(result.subset, result.metric) for result in results] == [(d, m) for d in ("fr-en", "en-fr") for m in ("chrf", "bleu")]
    rows = [row for row in table.to_pylist() if row["direction"] == "fr-en"]
    prompt = rows[0]["prompt"]
    assert prompt.startswith("<|im_start|>user\n")
    assert prompt.endswith(f"Traduis en anglais :\n\n{rows[0]['source']}<|im_end|>\n<|im_start|>assistant\n")
    (made,) = engine.generate([model.encode(prompt)], 8, [0, 3])
    assert rows[0]["answer"] == model.tokenizer.decode(made, skip_special_tokens=True).strip()
    references = [row["reference"] for row in rows]
    chrf = results[0]
    assert chrf.value == pytest.approx(sacrebleu.corpus_chrf([row["answer"] for row in rows], [references]).score)
    assert chrf.baselines[COPY] == pytest.approx(sacrebleu.corpus_chrf([row["source"] for row in rows], [references]).score)
    assert chrf.baselines[MEMORY] == pytest.approx(sacrebleu.corpus_chrf([row["memory"] for row in rows], [references]).score)
    assert (chrf.n, chrf.details["pages"], chrf.chance) == (5, 2, None)
