from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from bertkd_ray.core.errors import UserError
from bertkd_ray.corpus.iwslt14 import EXPECTED_PAIRS, archive_hash, check_counts, read_iwslt14
from tests.helpers.iwslt14_archive import Pair, sentence_pairs, write_archive, write_small_archive

TALK: list[Pair] = [
    ("Titel & Thema: Männer's Welt", "Title & theme: Men's world"),
    ("Er schläft in den U.S.", "He sleeps in the U.S."),
    ("", ""),
    ("Nur Deutsch.", ""),
    ('"Ja," sagte er.', '"Yes," he said.'),
    ("R &amp; D [1] a|b <em>", "R &amp; D [1] a|b <em>"),
    ("ein zwei drei", "one two"),  # 3 / 2 is 1.5, no more
    ("ein zwei drei vier", "one two"),
    ("a", "b c"),
    ("w " * 175, "w " * 175),
    ("w " * 176, "w " * 175),
    ("x" * 1000, "y"),
    ("x" * 1001, "y"),
    ("Größe ΣΑΣ", "Size ΣΑΣ"),
]
TRAIN = [
    ("titel &amp; thema : männer &apos; s welt", "title &amp; theme : men &apos;s world"),
    ("er schläft in den u.s .", "he sleeps in the u.s ."),
    ("&quot; ja , &quot; sagte er .", "&quot; yes , &quot; he said ."),
    (
        "r &amp; amp ; d &#91; 1 &#93; a &#124; b &lt; em &gt;",
        "r &amp; amp ; d &#91; 1 &#93; a &#124; b &lt; em &gt;",
    ),
    ("ein zwei drei", "one two"),
    ("w " * 174 + "w", "w " * 174 + "w"),
    ("x" * 1000, "y"),
    ("größe σασ", "size σασ"),
]
RAW = [
    ("Titel & Thema: Männer's Welt", "Title & theme: Men's world"),
    ("Er schläft in den U.S.", "He sleeps in the U.S."),
    ('"Ja," sagte er.', '"Yes," he said.'),
    ("R & D [1] a|b <em>", "R & D [1] a|b <em>"),
    ("ein zwei drei", "one two"),
    ("w " * 174 + "w", "w " * 174 + "w"),
    ("x" * 1000, "y"),
    ("Größe ΣΑΣ", "Size ΣΑΣ"),
]
TESTS: list[list[Pair]] = [
    [("Wir sind’s.", "It’s us."), ("", "")],
    [("Q&amp;A", "Q&amp;A"), ("viel zu lang für eine Seite", "yes")],
    [("drei", "three")],
    [("Vier &quot;4&quot;", "Four &quot;4&quot;")],
    [("fünf", "five")],
]


def read(path: Path, split: str, text: str = "paper", *, src: str = "de", tgt: str = "en") -> list[Pair]:
    return list(read_iwslt14(str(path), split, src_lang=src, tgt_lang=tgt, text=text))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("iwslt14"), [TALK], TESTS)


def forms(archive: Path) -> Iterable[Path | str]:
    """The archive, its folder, and the folder that holds its folder."""
    return archive, archive.parent / "de-en", archive.parent


def test_training_lines_are_stripped_tokenised_cleaned_and_lower_cased(archive: Path) -> None:
    for path in forms(archive):
        assert read(Path(path), "train") == TRAIN
        assert read(Path(path), "valid") == []


def test_raw_text_is_that_of_the_same_pairs(archive: Path) -> None:
    assert read(archive, "train", "raw") == RAW


def test_the_five_sets_are_joined_and_nothing_of_them_is_dropped(archive: Path) -> None:
    assert read(archive, "test") == [
        ("wir sind &apos; s .", "it &apos;s us ."),
        ("", ""),
        ("q &amp; amp ; a", "q &amp; amp ; a"),
        ("viel zu lang für eine seite", "yes"),
        ("drei", "three"),
        ("vier &amp; quot ; 4 &amp; quot ;", "four &amp; quot ; 4 &amp; quot ;"),
        ("fünf", "five"),
    ]
    assert read(archive, "test", "raw") == [
        ("Wir sind's.", "It's us."),
        ("", ""),
        ("Q&A", "Q&A"),
        ("viel zu lang für eine Seite", "yes"),
        ("drei", "three"),
        ('Vier "4"', 'Four "4"'),
        ("fünf", "five"),
    ]


@pytest.mark.parametrize("text", ["paper", "raw"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_other_direction_has_the_same_pairs(archive: Path, split: str, text: str) -> None:
    there, back = read(archive, split, text), read(archive, split, text, src="en", tgt="de")
    assert [pair[::-1] for pair in back] == there


def test_every_23rd_of_the_kept_pairs_is_valid(tmp_path: Path) -> None:
    kept = sentence_pairs(70)
    # A pair that cleaning drops before each of the first forty shifts nothing.
    talk = [pair for good in kept[:40] for pair in (("zu viele Wörter hier", "one"), good)] + kept[40:]
    archive = write_archive(tmp_path, [[kept[0], kept[1], *talk[4:]]], [[]] * 5)
    for text in ("paper", "raw"):
        train, valid = read(archive, "train", text), read(archive, "valid", text)
        expected = kept if text == "raw" else [tuple(side[:-1].lower() + " ." for side in pair) for pair in kept]
        assert valid == [expected[22], expected[45], expected[68]]
        assert train == [*expected[:22], *expected[23:45], *expected[46:68], expected[69]]


def test_separators_of_unicode_end_no_line(tmp_path: Path) -> None:
    archive = write_archive(tmp_path, [[("a\u2028b", "c\x85d"), ("e\x0cf", "g h\r")]], [[("h\u2029i", "j")]] * 5)
    assert read(archive, "train") == [("a b", "c d"), ("e f", "g h")]
    assert read(archive, "test", "raw") == [("h\u2029i", "j")] * 5


# --- fingerprints and counts -----------------------------------------------------------------------------------------


def test_an_archive_and_its_folder_have_one_hash_of_what_is_used(archive: Path, tmp_path: Path) -> None:
    assert len({archive_hash(str(path)) for path in forms(archive)}) == 1
    other = shutil.copytree(archive.parent / "de-en", tmp_path / "de-en")
    (other / "README").write_text("changed")
    assert archive_hash(str(other)) == archive_hash(str(archive))
    names = sorted(path.name for path in other.iterdir() if path.name != "README")
    assert len(names) == 12
    seen = {archive_hash(str(other))}
    for name in names:
        (other / name).write_bytes((other / name).read_bytes() + b"\n")
        seen.add(archive_hash(str(other)))
    assert len(seen) == 13


def test_members_may_stand_in_any_order_and_anywhere(archive: Path, tmp_path: Path) -> None:
    files = sorted((archive.parent / "de-en").iterdir(), reverse=True)
    with tarfile.open(tmp_path / "again.tar.gz", "w:gz") as tar:
        for file in files:
            link = tarfile.TarInfo(f"links/{file.name}")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
            tar.add(file, f"./a/../{file.name}")
    again = tmp_path / "again.tar.gz"
    assert archive_hash(str(again)) == archive_hash(str(archive))
    assert read(again, "test") == read(archive, "test")
    assert os.listdir(tmp_path) == ["again.tar.gz"]


def test_only_the_original_counts_pass_for_a_whole_archive() -> None:
    assert check_counts(EXPECTED_PAIRS) is None
    assert check_counts({"train": 110, "valid": 5, "test": 15}) is None
    warning = check_counts({**EXPECTED_PAIRS, "train": 160_238})
    assert warning is not None
    assert "160,238 / 7,283 / 6,750" in warning
    assert "160,239 / 7,283 / 6,750" in warning
    assert check_counts({**EXPECTED_PAIRS, "test": 0}) is not None


def test_the_miniature_splits_as_the_original(tmp_path: Path) -> None:
    archive = write_small_archive(tmp_path)
    counts = {split: len(read(archive, split)) for split in EXPECTED_PAIRS}
    assert counts == {"train": 110, "valid": 5, "test": 15}


# --- what is refused -------------------------------------------------------------------------------------------------


def error_message(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as refused:
        act()
    message = str(refused.value)
    assert "\n" not in message
    return message


def error_messages(path: Path, split: str = "train") -> str:
    """The message of hashing, which is that of reading up to the words of the latter."""
    read_message = error_message(lambda: read(path, split))
    hash_message = error_message(lambda: archive_hash(str(path)))
    assert str(path) in read_message
    assert str(path) in hash_message
    return hash_message


@pytest.mark.parametrize("languages", [("de", "fr"), ("de", "de"), ("es", "en")])
def test_other_languages_are_refused_with_the_keys(archive: Path, languages: Pair) -> None:
    message = error_message(lambda: read(archive, "train", src=languages[0], tgt=languages[1]))
    assert "corpus.src_lang" in message


@pytest.mark.parametrize("form", ["archive", "folder"])
@pytest.mark.parametrize("name", ["train.tags.de-en.en", "IWSLT14.TEDX.dev2012.de-en.de.xml"])
def test_a_missing_member_is_named(tmp_path: Path, name: str, form: str) -> None:
    folder = write_small_archive(tmp_path, archive=False)
    (folder / name).unlink()
    path = folder
    if form == "archive":
        path = tmp_path / "de-en.tgz"
        with tarfile.open(path, "w:gz") as tar:
            tar.add(folder, "de-en")
    assert name in error_messages(path, "test" if "xml" in name else "train")


def test_a_member_that_is_there_twice_is_named(archive: Path, tmp_path: Path) -> None:
    """Which of them is meant, nobody can tell: unpacked, the last would stand."""
    name, path = "train.tags.de-en.en", tmp_path / "twice.tgz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(archive.parent / "de-en", "de-en")
        tar.add(archive.parent / "de-en" / name, f"other/{name}")
    assert f"{path}: holds {name} twice; get it again" in error_messages(path)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "de-en.tgz"
    page.write_text("<html>moved</html>")
    assert "no .tgz archive" in error_messages(page)
    page.write_bytes(gzip.compress(b"no tar" * 1000))
    assert "no .tgz archive" in error_messages(page)
    page.write_bytes(b"")
    assert "no .tgz archive" in error_messages(page)
    assert "no such file" in error_messages(tmp_path / "absent.tgz")


@pytest.mark.parametrize("name", ["de-en.tgz", "de-en.tar.gz"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_archive_never_passes(archive: Path, tmp_path: Path, split: str, name: str) -> None:
    whole = archive.read_bytes()
    path = tmp_path / name
    for cut in (len(whole) - 1, len(whole) // 2, 30):
        path.write_bytes(whole[:cut])
        assert "truncated" in error_messages(path, split)
    # The checksum of gzip stands in the 8th to 5th byte from the end.
    path.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
    assert "CRC" in error_messages(path, split)


def test_sides_of_different_length_are_refused_with_both_counts(tmp_path: Path) -> None:
    folder = write_small_archive(tmp_path, archive=False)
    with (folder / "train.tags.de-en.en").open("a") as file:
        file.write("one more\n")
    message = error_message(lambda: read(folder, "train"))
    assert "train.tags.de-en.de has 115 lines" in message
    assert "train.tags.de-en.en has 116" in message
    xml = folder / "IWSLT14.TED.tst2011.de-en.de.xml"
    xml.write_text(xml.read_text().replace('<seg id="2">', "<p>"))
    assert "IWSLT14.TED.tst2011.de-en.de.xml has 2 lines" in error_message(lambda: read(folder, "test"))


def test_text_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    folder = write_small_archive(tmp_path, archive=False)
    path = folder / "train.tags.de-en.de"
    path.write_bytes(path.read_bytes().replace("schläft".encode(), "schläft".encode("latin-1"), 1))
    assert "train.tags.de-en.de:4: not UTF-8" in error_message(lambda: read(folder, "train"))


def test_reading_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pair is there before the archive is read to its end."""
    folder = write_small_archive(tmp_path, archive=False)
    path = tmp_path / "large.tgz"
    noise = hashlib.shake_256(b"noise").digest(1 << 22)
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, "de-en")
        member = tarfile.TarInfo("noise")
        member.size = len(noise)
        tar.addfile(member, io.BytesIO(noise))
    read_bytes = 0
    original = gzip.GzipFile.read

    def counted(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        nonlocal read_bytes
        block = original(self, size)
        read_bytes += len(block)
        return block

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    pairs = read_iwslt14(str(path), "train", src_lang="de", tgt_lang="en", text="raw")
    assert next(pairs) == sentence_pairs(1)[0]
    assert 0 < read_bytes < len(noise) // 4
    pairs.close()  # type: ignore[attr-defined]


def test_a_member_that_says_it_is_huge_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "de-en.tgz"
    member = tarfile.TarInfo("train.tags.de-en.de")
    member.size = 1 << 40
    path.write_bytes(gzip.compress(member.tobuf()))
    assert "train.tags.de-en.de has 1,099,511,627,776 bytes" in error_messages(path)
