from __future__ import annotations

from evaluation.charts import rates_chart
from evaluation.data_sections import after_caps, busy_steps, edit_table, family_table, mix_rows_of, rate_table, replay_table, rule_rates

RATES = {
    "documents": [{"source": "a", "lang": "fr", "documents": 100}, {"source": "b", "lang": "fr", "documents": 300}],
    "rules": [
        {"step": "quality", "reason": "too_few_words", "source": "a", "lang": "fr", "enabled": True, "independent": 40, "sequential": 10},
        {"step": "quality", "reason": "too_few_words", "source": "b", "lang": "fr", "enabled": True, "independent": 0, "sequential": 0},
        {"step": "c4", "reason": "curly_bracket", "source": "b", "lang": "fr", "enabled": False, "independent": 60, "sequential": 0},
    ],
    "factors": [-0.5, 0.0, 0.25],
    "replay": [
        {
            "step": "quality",
            "reason": "too_few_words",
            "lang": "fr",
            "enabled": True,
            "lower_bound": True,
            "threshold": 50,
            "documents": 400,
            "fails": [4, 40, 80],
        },
    ],
}


def test_rates_are_shares_of_the_languages_documents():
    rates = rule_rates(RATES)
    assert [(rate["reason"], rate["independent"], rate["sequential"]) for rate in rates] == [
        ("too_few_words", 0.1, 0.025),
        ("curly_bracket", 0.15, 0.0),
    ]
    assert rates_chart(rates).startswith("<svg")
    assert rates_chart([]) == ""


def test_tables_leave_out_what_never_happens_and_say_which_rules_are_off():
    rows = rate_table(RATES).rows
    assert [row[1:5] for row in rows] == [["too_few_words", "on", "fr", "a"], ["curly_bracket", "off", "fr", "b"]]
    assert rows[0][-2:] == ["40.0 %", "10.0 %"]
    table = replay_table(RATES)
    assert list(table.columns[5:]) == ["50 % looser", "as it is", "25 % stricter"]
    assert table.rows == [["fr", "quality", "too_few_words", "on", "≥ 50", "1.0 %", "10.0 %", "20.0 %"]]


def step(name: str, removed: int = 0, chars: int = 0, **edits: int) -> dict:
    figures = {"documents_in": 9, "documents_removed": removed, "chars_in": 90, "chars_removed": chars}
    return {"step": name, "source": "a", "lang": "fr", **figures, "reasons": {}, "edits": edits}


def test_only_busy_steps_are_drawn_and_edits_have_a_table():
    steps = [step("url_block"), step("extract"), step("lines", chars=5, boilerplate_line=2), step("quality", removed=1, chars=9)]
    busy = busy_steps({"fr": steps})
    assert [entry["step"] for entry in busy["fr"]] == ["extract", "lines", "quality"]
    assert after_caps(busy) == busy
    assert edit_table(steps).rows == [["lines", "fr", "boilerplate_line 2", "5"]]


def test_the_picture_begins_after_the_caps():
    steps = {"fr": [step("extract"), step("cap", removed=5, chars=50), step("quality", removed=1)], "en": [step("extract"), step("cap")]}
    assert after_caps(steps) == {"fr": [steps["fr"][2]], "en": []}


def test_a_mix_without_tokens_shows_bytes_and_documents_alone():
    row = {"kind": "source", "name": "a", "stream": "fr", "bytes": 2_000_000, "documents": 7}
    assert mix_rows_of([row], with_tokens=False).rows == [["a", "fr", "2.00", "7"]]


def test_families_stand_beside_each_other_in_both_phases():
    mix = {"families": {"code": {"bytes": 1_000_000, "share": 0.25}}, "annealing": {"families": {"code": {"share": 0.5}}}}
    table = family_table(mix)
    assert list(table.columns) == ["family", "MB", "share of pretraining", "share of annealing"]
    assert table.rows == [["code", "1.00", "25.0 %", "50.0 %"]]
    assert family_table(mix | {"annealing": None}).rows == [["code", "1.00", "25.0 %"]]
