"""Tables that are not UTF-8: read as GBK where they surely are, else refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpipe.jobfile import load_jobs
from tests.support.rows import HEAD, TEMPLATE, load, named, problems

FOREIGN = [
    ("cp949", "빨간 머그컵\n파란 노트"),
    ("euc-kr", "커피잔"),
    ("cp949", "원목 책상과 의자"),
    ("cp932", "あかい\nえほん"),
    ("cp932", "赤いマグカップ"),
    ("cp932", "急須と湯のみ"),
    ("euc-jp", "あおいノート"),
    ("euc-jp", "漆塗り椀\n抹茶"),
    ("cp1251", "стол"),
    ("cp1251", "Стул из дуба"),
    ("koi8-r", "стол\nзонт"),
    ("cp866", "стол\nВаза"),
    ("cp1253", "Ποτήρι"),
    ("cp874", "โต๊ะ\nชา"),
    ("big5", "紅色杯子"),
    ("big5", "茶壺\n木桌"),
    ("cp1252", "Crème brûlée"),
    ("cp1254", "şişe"),
    ("iso2022_jp", "赤いマグカップ"),
    ("utf-16-le", "a red mug"),
    ("utf-16-be", "a red mug"),
    ("utf-32", "a red mug"),
]

CHINESE = [
    "红色陶瓷杯\n白瓷杯在橡木桌上",
    "马克杯",
    "不锈钢保温杯",
    "一只猫坐在窗边，柔和的光线",
    "女装连衣裙 夏季新款\n男士皮带\n儿童绘本",
    "紫砂壶 250克 ￥128\n龙井茶",
    "海报：北京的秋天，电影质感",
    "榴莲味蛋糕\n琵琶\n蝴蝶图案围巾\n机械键盘",
]


def table(lines: str) -> str:
    return "sku,text\n" + "".join(f"A{n},{each}\n" for n, each in enumerate(lines.split("\n")))


@pytest.mark.parametrize(("encoding", "lines"), FOREIGN)
def test_what_may_be_another_encoding_is_not_read_as_gbk(
    tmp_path: Path, encoding: str, lines: str
) -> None:
    """It would be bought as other words; the message says how it would read, and what to do."""
    found = problems(tmp_path, TEMPLATE, table(lines).encode(encoding))
    assert len(found) == 1
    assert "rows.csv:" in found[0]
    assert "UTF-8" in found[0]


@pytest.mark.parametrize(("encoding", "lines"), FOREIGN)
def test_the_encoding_can_be_said(tmp_path: Path, encoding: str, lines: str) -> None:
    """As ``encoding:`` beside ``rows:``; then nothing is judged."""
    file = load(tmp_path, f"encoding: {encoding}\n{TEMPLATE}", table(lines).encode(encoding))
    assert [prompt for _, prompt in named(file)] == lines.split("\n")
    assert "read as" not in (file.made_of or "")


@pytest.mark.parametrize("lines", CHINESE)
@pytest.mark.parametrize("encoding", ["gbk", "gb18030"])
def test_what_is_surely_chinese_is_read_and_said(tmp_path: Path, encoding: str, lines: str) -> None:
    """With an excerpt, so that whoever pays can see whether it is right."""
    file = load(tmp_path, TEMPLATE, table(lines).encode(encoding))
    assert [prompt for _, prompt in named(file)] == lines.split("\n")
    assert "read as GB18030 (GBK): 'A0," in (file.made_of or "")
    assert lines.split("\n", maxsplit=1)[0][:8] in (file.made_of or "")


def test_a_few_words_that_may_be_either_are_asked_about(tmp_path: Path) -> None:
    """Two characters are too little; the message has them, and ``encoding: gbk`` takes them."""
    rows = "sku,text\nA1,旗袍\n".encode("gbk")
    (found,) = problems(tmp_path, TEMPLATE, rows)
    assert "rows.csv:2: not UTF-8, and as GBK it would be 'A1,旗袍'" in found
    assert "encoding: gbk, beside rows:" in found
    assert named(load(tmp_path, f"encoding: gbk\n{TEMPLATE}", rows)) == [("A1", "旗袍")]


def test_a_wrong_word_for_the_encoding_is_told(tmp_path: Path) -> None:
    """One that is none, one that no text is in, and one that the table is not in."""
    for word in ("gbkk", "base64", "rot13"):
        found = problems(tmp_path, f"encoding: {word}\n{TEMPLATE}", "sku,text\n1,a\n")
        assert f"jobs.yaml:1: encoding: '{word}' is none: write gbk" in found[0]
    found = problems(tmp_path, f"encoding: utf-8\n{TEMPLATE}", "sku,text\n1,杯\n".encode("gbk"))
    assert "rows.csv:2: not UTF-8, as encoding: says: correct that" in found[0]


def test_a_table_of_jobs_says_so_too(tmp_path: Path) -> None:
    """A table that is the job file itself."""
    path = tmp_path / "jobs.csv"
    model = HEAD.split("model: ")[1].split("}")[0]
    path.write_bytes(f"model,prompt\n{model},红色陶瓷杯\n".encode("gbk"))
    assert "红色陶瓷杯" in (load_jobs(path).made_of or "")
