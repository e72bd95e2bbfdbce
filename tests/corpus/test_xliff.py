"""XLIFF: both generations, which targets count, directions, and what stands in a text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bertkd_ray.corpus.xliff import read_xliff
from tests.corpus.test_readers import error_message, pairs_of

FIRST = "urn:oasis:names:tc:xliff:document:1.2"
SECOND = "urn:oasis:names:tc:xliff:document:2.0"


def first(*units: str, src: str = "de-DE", tgt: str = "en-GB", namespace: str = FIRST) -> str:
    target = f'target-language="{tgt}"' if tgt else ""
    file = f'<file original="a" source-language="{src}" {target} datatype="plaintext"><header><note>x</note></header>'
    return f'<xliff version="1.2" xmlns="{namespace}">{file}<body>\n{"".join(units)}</body></file></xliff>'


def second(*units: str, src: str = "de-DE", tgt: str = "en-GB") -> str:
    root = f'<xliff version="2.0" xmlns="{SECOND}" srcLang="{src}" trgLang="{tgt}">'
    return f'{root}<file id="f">{"".join(units)}</file></xliff>'


def unit(source: str, target: str | None = None, *, state: str = "", more: str = "", **attributes: str) -> str:
    given = "".join(f' {name}="{value}"' for name, value in attributes.items())
    state = f' state="{state}"' if state else ""
    end = "" if target is None else f"<target{state}>{target}</target>"
    return f'<trans-unit id="1"{given}><source>{source}</source>{end}{more}</trans-unit>\n'


def segment(source: str, target: str | None = None, state: str = "") -> str:
    state = f' state="{state}"' if state else ""
    end = "" if target is None else f"<target>{target}</target>"
    return f"<segment{state}><source>{source}</source>{end}</segment>\n"


def read(
    tmp_path: Path, text: str, src: str = "de", tgt: str = "en", **options: bool
) -> tuple[list[tuple[str, str]], dict[str, int]]:
    path = tmp_path / "a.xlf"
    path.write_text(text, encoding="utf-8")
    left_out: Counter[str] = Counter()
    return pairs_of(read_xliff(str(path), src, tgt, left_out, **options)), dict(left_out)


STATES = {
    "": True,
    "final": True,
    "signed-off": True,
    "translated": True,
    "x-mine": True,
    "new": False,
    "needs-translation": False,
    "needs-review-l10n": False,
    "initial": False,
}


@pytest.mark.parametrize(("state", "counts"), STATES.items())
def test_a_target_counts_by_its_state_approved_or_not(tmp_path: Path, state: str, counts: bool) -> None:
    wanted = ([("a", "b")], {}) if counts else ([], {"unfinished": 1})
    for approved in ("yes", "no"):
        assert read(tmp_path, first(unit("a", "b", state=state, approved=approved))) == wanted
    assert read(tmp_path, second(f'<unit id="1">{segment("a", "b", state)}</unit>')) == wanted


def test_approved_targets_alone(tmp_path: Path) -> None:
    units = unit("a", "b", approved="yes"), unit("c", "d", approved="no"), unit("e", "f", state="final")
    assert read(tmp_path, first(*units), approved=True) == ([("a", "b")], {"not_approved": 2})
    segments = segment("a", "b", "final"), segment("c", "d", "reviewed")
    assert read(tmp_path, second(f"<unit>{''.join(segments)}</unit>"), approved=True) == (
        [("a", "b")],
        {"not_approved": 1},
    )


def test_what_is_left_out_of_the_first_generation(tmp_path: Path) -> None:
    alternative = '<alt-trans match-quality="80"><source>x</source><target>y</target></alt-trans>'
    text = first(
        unit("a", "b", more=alternative),
        unit("untranslated"),
        unit("empty", " "),
        unit("fixed", "fixed", translate="no"),
        f'<group translate="no">{unit("in a group", "x")}{unit("c", "d", translate="yes")}</group>',
        '<trans-unit id="2"><source>e f</source><seg-source><mrk mtype="seg" mid="1">e</mrk></seg-source>'
        '<target><mrk mtype="seg" mid="1">g</mrk> <mrk mtype="seg" mid="2">h</mrk></target></trans-unit>',
    )
    counts = {"alternatives": 1, "untranslated": 2, "not_to_translate": 2}
    assert read(tmp_path, text) == ([("a", "b"), ("c", "d"), ("e f", "g h")], counts)
    assert [src for src, _ in read(tmp_path, text, "de", "de")[0]] == ["a", "untranslated", "empty", "c", "e f"]


def test_what_is_left_out_of_the_second(tmp_path: Path) -> None:
    matches = (
        '<mtc:matches xmlns:mtc="urn:oasis:names:tc:xliff:matches:2.0"><mtc:match ref="#1"><source>x</source>'
        "<target>y</target></mtc:match></mtc:matches>"
    )
    text = second(
        f'<unit id="1">{matches}<originalData><data id="d">&lt;b></data></originalData>{segment("a", "b")}'
        f"<ignorable><source> </source><target> </target></ignorable>{segment('c', 'd')}</unit>",
        f'<unit id="2" translate="no">{segment("no", "no")}</unit>',
        f'<group id="g"><unit id="3">{segment("e")}</unit></group>',
    )
    counts = {"alternatives": 1, "not_to_translate": 1, "untranslated": 1}
    assert read(tmp_path, text) == ([("a", "b"), ("c", "d")], counts)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ('Press <g id="1">OK</g><x id="2"/> now', 'Press <g id="1">OK</g><x id="2"/> now'),
        ('a <ph id="1">&lt;br/></ph>b', 'a <ph id="1">&lt;br/&gt;</ph>b'),
        ('a <mrk mtype="term">term</mrk> b', "a term b"),
        ("%s &lt;b&gt;x&lt;/b&gt; {name} &amp;", "%s <b>x</b> {name} &"),
        (
            '<g id="1" xml:space="preserve"><bx id="&quot;"></bx></g>',
            """<g id="1" xml:space="preserve"><bx id='"'/></g>""",
        ),
    ],
)
def test_markup_stays_as_it_is(tmp_path: Path, written: str, text: str) -> None:
    assert read(tmp_path, first(unit(written, "x"))) == ([(text, "x")], {})


def test_directions_and_languages(tmp_path: Path) -> None:
    text = first(unit("a", "b"))
    assert read(tmp_path, text, "en", "de")[0] == [("b", "a")]
    assert read(tmp_path, text, "eng", "deu-DE")[0] == [("b", "a")]
    assert read(tmp_path, first(unit("a", "b"), tgt=""))[0] == [("a", "b")]
    assert read(tmp_path, first(unit("a", "b"), namespace="").replace(' xmlns=""', ""))[0] == [("a", "b")]
    with_other = text.replace(
        "</xliff>", f'<file source-language="de" target-language="fr"><body>{unit("c", "d")}</body></file></xliff>'
    )
    assert read(tmp_path, with_other) == ([("a", "b")], {"other_languages": 1})
    path = tmp_path / "a.xlf"
    path.write_text(first(unit("a", "b"), tgt="fr"))
    assert error_message(read_xliff(str(path), "de", "en", Counter())) == (
        f"{path}: no file in it is from de to en; it has de-DE to fr; correct src_lang and tgt_lang, or name the tags "
        "in src_column and tgt_column"
    )


def test_a_prefix_for_the_namespace_and_foreign_elements(tmp_path: Path) -> None:
    text = (
        f'<x:xliff xmlns:x="{FIRST}" xmlns:s="urn:other" version="1.2">'
        '<x:file source-language="de" target-language="en">'
        "<s:source>no</s:source><x:body><x:trans-unit id='1'><x:source>a</x:source><s:target>no</s:target>"
        "<x:target>b</x:target></x:trans-unit></x:body></x:file></x:xliff>"
    )
    assert read(tmp_path, text) == ([("a", "b")], {})


def test_what_is_no_xliff(tmp_path: Path) -> None:
    path = tmp_path / "a.xlf"
    for content, said in {
        "<tmx/>": "1: the document is <tmx>, not <xliff>; name its form",
        first(unit("a", "b"))[:-3]: "3: not well-formed XML (unclosed token)",
        '<!DOCTYPE xliff [<!ENTITY x "y">]>' + first(): "1: declares the entity x",
    }.items():
        path.write_text(content)
        assert error_message(read_xliff(str(path), "de", "en", Counter())).startswith(f"{path}:{said}")
