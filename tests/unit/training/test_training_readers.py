"""Every format of the data readers, from files written here."""

from __future__ import annotations

import hashlib
import json
import lzma
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from conveyor.errors import InvalidArgument
from conveyor.training.examples import LabelledText, SeriesTable, TaggedTokens, only
from conveyor.training.readers.catalogue import READERS, detect_format, read_parts
from conveyor.training.readers.files import open_text, verify
from conveyor.training.readers.sentiment import (
    read_imdb,
    read_labelled_csv,
    read_labelled_lines,
    read_labelled_tsv,
    read_lines,
)
from conveyor.training.readers.series import read_bare_series, read_series_csv, read_series_rows, slice_series
from conveyor.training.readers.tagging import (
    read_characters,
    read_cluener,
    read_conllu,
    read_iob2,
    read_peoples_daily,
)
from conveyor.training.recipe import DataFile


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_an_xz_file_reads_as_the_plain_one(tmp_path: Path) -> None:
    """A compressed file gives the same text as the file itself."""
    plain = write(tmp_path / "a.txt", "1\tgrün\n")
    packed = tmp_path / "a.txt.xz"
    packed.write_bytes(lzma.compress(plain.read_bytes()))
    with open_text(plain) as one, open_text(packed) as two:
        assert one.read() == two.read()


def test_a_file_that_is_no_xz_is_refused(tmp_path: Path) -> None:
    """A broken compressed file is an error that names it."""
    path = write(tmp_path / "broken.xz", "not compressed")
    with pytest.raises(InvalidArgument, match=r"broken\.xz cannot be read"), open_text(path) as file:
        file.read()


def test_a_file_of_another_checksum_is_refused(tmp_path: Path) -> None:
    """The error names the file and both checksums; the right one passes."""
    path = write(tmp_path / "a.txt", "abc")
    verify(path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    with pytest.raises(InvalidArgument, match=r"SHA-256 ba7816bf.*expected 0000"):
        verify(path, "0" * 64)
    with pytest.raises(InvalidArgument, match="there is no data file"):
        verify(tmp_path / "none.txt", "0" * 64)


def test_labelled_lines(tmp_path: Path) -> None:
    """`label TAB text`: only the first tab divides, quotes are letters, blank lines are skipped."""
    path = write(tmp_path / "a.tsv", '1\tA "fine" day\n\n0\tNo\tgood\n')
    assert [LabelledText('A "fine" day', "1"), LabelledText("No\tgood", "0")] == read_labelled_lines(path)


def test_labelled_lines_without_a_label_are_refused(tmp_path: Path) -> None:
    """The error names the row."""
    with pytest.raises(InvalidArgument, match="row 2"):
        read_labelled_lines(write(tmp_path / "a.tsv", "1\tfine\nno label\n"))


def test_imdb(tmp_path: Path) -> None:
    """The group of a review is its `source_dir`; an unbalanced quote swallows nothing."""
    text = (
        'label\tfile_id\trating\tsource_dir\ttext\n0\tneg/0\t2\ttrain\tBad " film<br />really\n1\tpos/1\t9\tval\tGood\n'
    )
    expected = [LabelledText('Bad " film<br />really', "0", "train"), LabelledText("Good", "1", "val")]
    assert expected == read_imdb(write(tmp_path / "a.tsv", text))


def test_chinese_tables(tmp_path: Path) -> None:
    """CSV quotes fields with commas, TSV does not; the category is the group where there is one."""
    with_category = write(tmp_path / "a.csv", 'cat,label,review\n书,1,"很好,推荐"\n')
    without = write(tmp_path / "b.csv", "label,review\n0,太慢\n")
    tsv = write(tmp_path / "c.tsv", 'label\ttext_a\n1\t"不错\n')
    assert [LabelledText("很好,推荐", "1", "书")] == read_labelled_csv(with_category)
    assert [LabelledText("太慢", "0")] == read_labelled_csv(without)
    assert [LabelledText('"不错', "1")] == read_labelled_tsv(tsv)


@pytest.mark.parametrize("text", ["label\tother\n1\tx\n", "label\ttext_a\n1\tx\ty\n"])
def test_a_table_of_other_columns_is_refused(tmp_path: Path, text: str) -> None:
    """A missing column and a row of another width are errors."""
    with pytest.raises(InvalidArgument, match="columns"):
        read_labelled_tsv(write(tmp_path / "a.tsv", text))


CONLLU = """\
# sent_id = 1
# text = I don't know = yes
1\tI\tI\tPRON\tPRP\t_\t4\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
3.1\tghost\t_\tVERB\t_\t_\t_\t_\t_\t_
4\tknow\tknow\tVERB\tVB\t_\t0\troot\t_\t_


1\tYes\tyes\tINTJ\tUH\t_\t0\troot\t_\t_
"""


def test_conllu(tmp_path: Path) -> None:
    """Multiword ranges and empty nodes are no words; the raw text is kept."""
    first, second = read_conllu(write(tmp_path / "a.conllu", CONLLU))
    expected = TaggedTokens(("I", "do", "n't", "know"), ("PRON", "AUX", "PART", "VERB"), "I don't know = yes")
    assert expected == first
    assert TaggedTokens(("Yes",), ("INTJ",)) == second


def test_iob2(tmp_path: Path) -> None:
    """Words and tags, and where the words stand in the raw text, white space included."""
    text = "# text = 看 iPhone吧\n1\t看\tO\t-\t-\n2\tiPhone\tB-PRO\t-\t-\n3\t吧\tO\t-\t-\n"
    (example,) = read_iob2(write(tmp_path / "a.iob2", text))
    assert TaggedTokens(("看", "iPhone", "吧"), ("O", "B-PRO", "O"), "看 iPhone吧") == example
    assert [(0, 1), (2, 8), (8, 9)] == example.word_spans()


def test_characters_with_space_or_tab(tmp_path: Path) -> None:
    """Both separators divide a token from its tag; a blank line ends a text, whatever follows the last."""
    spaced = write(tmp_path / "a.bmes", "张 B-NAME\n三 E-NAME\n\n去 O")
    tabbed = write(tmp_path / "a.conll", "New\tB-location\nYork\tI-location\n\n")
    expected = [TaggedTokens(("张", "三"), ("B-NAME", "E-NAME")), TaggedTokens(("去",), ("O",))]
    assert expected == read_characters(spaced)
    assert [TaggedTokens(("New", "York"), ("B-location", "I-location"))] == read_characters(tabbed)


def test_the_digits_of_weibo_are_dropped(tmp_path: Path) -> None:
    """Only a file in which every token has one is written so; `B2` elsewhere stays."""
    weibo = write(tmp_path / "w.conll", "小0\tB-PER\n明1\tI-PER\n")
    other = write(tmp_path / "o.conll", "B2\tO\nvitamin\tO\n")
    assert [TaggedTokens(("小", "明"), ("B-PER", "I-PER"))] == read_characters(weibo)
    assert [TaggedTokens(("B2", "vitamin"), ("O", "O"))] == read_characters(other)


def test_a_token_without_tag_is_refused(tmp_path: Path) -> None:
    """The error names the line where the text begins."""
    with pytest.raises(InvalidArgument, match="line 3"):
        read_characters(write(tmp_path / "a.bio", "好 O\n\n坏\n"))


def test_peoples_daily(tmp_path: Path) -> None:
    """The paragraph's id is no word, brackets around names vanish, a slash is a word."""
    line = "19980101-01-001-001/m  [北方/ns  电台/n]nt  ，/w  王/nr  小明/nr  //w  \n19980101-01-001-002/m\n"
    expected = TaggedTokens(("北方", "电台", "，", "王", "小明", "/"), ("ns", "n", "w", "nr", "nr", "w"))
    assert [expected] == read_peoples_daily(write(tmp_path / "a.txt", line))
    assert "北方电台，王小明/" == expected.raw_text


def test_cluener(tmp_path: Path) -> None:
    """Ends are inclusive in the file; of overlapping entities the first keeps its characters."""
    row = {
        "text": "北山大学在北山",
        "label": {"organization": {"北山大学": [[0, 3]]}, "address": {"北山": [[0, 1], [5, 6]]}},
    }
    (example,) = read_cluener(write(tmp_path / "a.jsonl", json.dumps(row) + "\n"))
    expected = ("B-organization", *["I-organization"] * 3, "O", "B-address", "I-address")
    assert expected == example.tags
    assert tuple("北山大学在北山") == example.tokens


def test_series_csv(tmp_path: Path) -> None:
    """Times give start and frequency, NA and an absent step are missing, columns of words are left out."""
    rows = "01T00:00:00Z,1,a,NA 01T00:30:00Z,2,b,5 01T01:00:00Z,3,c,6 01T02:00:00Z,5,d,7".replace(" ", "\n2020-01-")
    head = "Time,Load,Note,Heat\n2020-01-"
    (table,) = read_series_csv(write(tmp_path / "a.csv", head + rows + "\n"))
    assert (("Load", "Heat"), "30min", datetime(2020, 1, 1, tzinfo=UTC)) == (
        table.columns,
        table.frequency,
        table.start,
    )
    np.testing.assert_array_equal([[1, np.nan], [2, 5], [3, 6], [np.nan, np.nan], [5, 7]], table.values)


def test_series_of_months(tmp_path: Path) -> None:
    """Months differ in length and are still an even grid."""
    (table,) = read_series_csv(write(tmp_path / "a.csv", '"Month","N"\n"1999-12",1\n"2000-01",2\n"2000-03",4\n'))
    assert "MS" == table.frequency
    np.testing.assert_array_equal([1, 2, np.nan, 4], table.values[:, 0])


def test_series_csv_with_parts_of_a_time(tmp_path: Path) -> None:
    """Columns year, month, day and hour give the times, and the row number is no feature."""
    rows = "".join(f"{h + 1},2010,1,1,{h},{h / 2}\n" for h in range(12))
    (table,) = read_series_csv(write(tmp_path / "a.csv", "No,year,month,day,hour,pm\n" + rows))
    assert (("pm",), "h", datetime(2010, 1, 1, tzinfo=UTC)) == (table.columns, table.frequency, table.start)
    assert [0.0, 0.5, 1.0] == table.values[:3, 0].tolist()


def test_a_series_without_an_even_grid_is_refused(tmp_path: Path) -> None:
    """Times off the grid, or words instead of times, are errors."""
    rows = "".join(f"2020-01-{day:02},1\n" for day in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)) + "2020-01-11T05:00:00,1\n"
    with pytest.raises(InvalidArgument, match="even grid"):
        read_series_csv(write(tmp_path / "a.csv", "d,v\n" + rows))
    with pytest.raises(InvalidArgument, match="does not hold times"):
        read_series_csv(write(tmp_path / "b.csv", "d,v\nmonday,1\n"))


def test_series_rows_and_bare_series(tmp_path: Path) -> None:
    """M4 rows end at their last number; a file without header is one series of many columns."""
    rows = write(tmp_path / "m.csv", '"V1","V2","V3","V4"\n"H1","6","5.5",\n"H2","1","","3"\n')
    one, two = read_series_rows(rows)
    assert [6.0, 5.5] == one.values[:, 0].tolist()
    np.testing.assert_array_equal([1.0, np.nan, 3.0], two.values[:, 0])
    (bare,) = read_bare_series(write(tmp_path / "e.txt", "1,2\n3,4\n5,6\n"))
    assert (("c0", "c1"), [5.0, 6.0], None) == (bare.columns, bare.values[2].tolist(), bare.start)


def test_slices_of_a_series() -> None:
    """`since` is the first time kept, `until` the first one not; columns come in the order asked for."""
    values = np.arange(20.0).reshape(10, 2)
    table = SeriesTable(("a", "b"), values, datetime(2020, 1, 1, tzinfo=UTC), "D")
    part = slice_series(table, ["b", "a"], datetime(2020, 1, 3, tzinfo=UTC), datetime(2020, 1, 5, tzinfo=UTC))
    assert [[5.0, 4.0], [7.0, 6.0]] == part.values.tolist()
    assert datetime(2020, 1, 3, tzinfo=UTC) == part.start
    assert datetime(2020, 1, 4, tzinfo=UTC) == part.time_of(1)
    with pytest.raises(InvalidArgument, match=r"\['c'\]"):
        slice_series(table, ["c"], None, None)
    with pytest.raises(InvalidArgument, match="need a series with times"):
        slice_series(SeriesTable(("a",), values[:, :1]), [], datetime(2020, 1, 1, tzinfo=UTC), None)


@pytest.mark.parametrize(
    ("task", "name", "text", "expected"),
    [
        ("sentiment", "a.tsv", "label\tfile_id\trating\tsource_dir\ttext\n", "imdb"),
        ("sentiment", "a.tsv", "label\ttext_a\n", "labelled-tsv"),
        ("sentiment", "a.csv", "cat,label,review\n", "labelled-csv"),
        ("sentiment", "a.tsv", "1\tFine\n", "labelled-lines"),
        ("tag", "a.conllu", "# text = x\n", "conllu"),
        ("tag", "a.conll", "1\tx\t_\tNOUN\t_\t_\t_\t_\t_\t_\n", "conllu"),
        ("tag", "a.iob2", "# text = x\n", "iob2"),
        ("tag", "a.jsonl", '{"text": "x"}\n', "cluener"),
        ("tag", "a.txt", "1-1/m  词/n\n", "peoples-daily"),
        ("tag", "a.bio", "词 O\n", "characters"),
        ("forecast", "a.csv", '"V1","V2"\n', "series-rows"),
        ("forecast", "a.csv", "date,OT\n", "series-csv"),
        ("forecast", "a.txt", "1.5,2.5\n", "series-bare"),
    ],
)
def test_formats_are_recognised(tmp_path: Path, task: str, name: str, text: str, expected: str) -> None:
    """Name and first line tell the format."""
    assert expected == detect_format(write(tmp_path / name, text), task)  # type: ignore[arg-type]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    """The error says how to name one."""
    with pytest.raises(InvalidArgument, match="--format"):
        detect_format(write(tmp_path / "a.txt", "whatever this is\n"), "tag")


def test_parts_of_a_recipe_are_filtered_and_renamed(tmp_path: Path) -> None:
    """Groups select examples, labels are renamed, parts of one data set come together."""
    write(tmp_path / "x" / "a.csv", "cat,label,review\n书,1,好\n酒店,0,差\n")
    digest = hashlib.sha256((tmp_path / "x" / "a.csv").read_bytes()).hexdigest()
    data = DataFile(
        name="shop",
        source="us",
        license="none",
        split="all",
        part="dev",
        file="x/a.csv",
        sha256=digest,
        format="labelled-csv",
        labels={"1": "positive"},
        groups=("书",),
    )
    assert {"shop all": [LabelledText("好", "positive", "书")]} == read_parts([data], "dev", tmp_path, LabelledText)
    assert {} == read_parts([data], "train", tmp_path, LabelledText)
    with pytest.raises(InvalidArgument, match="no examples of the task"):
        read_parts([data], "dev", tmp_path, TaggedTokens)


def test_only_wants_one_kind_and_something() -> None:
    """No example at all is as wrong as one of another kind."""
    assert [LabelledText("a", "b")] == only([LabelledText("a", "b")], LabelledText)
    with pytest.raises(InvalidArgument, match="LabelledText"):
        only([], LabelledText)


def test_every_format_has_a_reader() -> None:
    """The table of readers and the schema of recipes name the same formats."""
    assert set(READERS) == set(DataFile.model_fields["format"].annotation.__args__)  # type: ignore[union-attr]


def test_unlabelled_texts_are_lines(tmp_path: Path) -> None:
    """One text a line, blank lines are none."""
    path = write(tmp_path / "a.txt", "one text\n\n another \n")
    assert [LabelledText("one text", ""), LabelledText("another", "")] == read_lines(path)


def test_a_fold_divides_a_file_into_training_and_development(tmp_path: Path) -> None:
    """Every n-th example is for development, the others train; an epoch may read them several times."""
    path = write(tmp_path / "a.tsv", "".join(f"1\t{number}\n" for number in range(7)))
    common = {"name": "own", "source": "us", "license": "CC0-1.0", "file": path.name, "format": "labelled-lines"}
    common["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    train = DataFile.model_validate(common | {"split": "rest", "part": "train", "fold": [1, 3], "times": 2})
    dev = DataFile.model_validate(common | {"split": "third", "part": "dev", "fold": [1, 3]})
    trains = read_parts([train, dev], "train", tmp_path, LabelledText)["own rest"]
    devs = read_parts([train, dev], "dev", tmp_path, LabelledText)["own third"]
    assert list("02356") * 2 == [example.text for example in trains]
    assert list("14") == [example.text for example in devs]


def test_labels_of_degree_become_probabilities(tmp_path: Path) -> None:
    """A label that is named stands for a probability, the others for themselves."""
    path = write(tmp_path / "a.tsv", "2\tso so\n4\tgreat\n")
    data = DataFile(
        name="own",
        source="us",
        license="CC0-1.0",
        split="all",
        part="train",
        file=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        format="labelled-lines",
        shares={"2": 0.5},
        labels={"4": "positive"},
    )
    (examples,) = read_parts([data], "train", tmp_path, LabelledText).values()
    assert [LabelledText("so so", "2", "", 0.5), LabelledText("great", "positive")] == examples
