"""The shipped job files: they load, and cost what they say."""

from __future__ import annotations

from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from asyncpipe.cli.app import run_command
from asyncpipe.jobfile.file import JobFile
from asyncpipe.jobfile.load import load_jobs
from asyncpipe.pricing.price import price
from asyncpipe.providers.atlas.prices import built_in
from tests.support import CONFIGS

FILES = sorted(CONFIGS.glob("*.yaml"))

WEEKLY_AS_PRINTED = "566ffb54f22b644fbc800941380746d7a302c69ba8afe594e0eefcb1026b81b8"
"""SHA-256 of the article's YAML, line numbers taken off."""

ARTICLE_LIST = [
    (
        "产品发布缩略图",
        "引人注目的 YouTube 缩略图,粗体文本 'NEW LAUNCH',深色渐变背景上的产品聚焦,充满活力的点缀色,"
        "专业设计,4K",
        None,
    ),
    (
        "教程缩略图",
        "编程教程的 YouTube 缩略图,分屏展示代码编辑器和最终结果,科技美学,整洁现代的设计,"
        "醒目易读的文字",
        None,
    ),
    (
        "产品展示 Seedance",
        "流畅的产品揭示动画,现代小工具从柔光中显现,缓慢旋转以展示所有角度,极简白色背景,电影级照明",
        10,
    ),
    (
        "品牌介绍 Seedance",
        "动态品牌介绍序列,抽象几何形状组合成标志,粒子和光迹,专业的动态图形风格,深色背景",
        5,
    ),
    (
        "Hero 视频 Veo",
        "黄金时刻现代城市天际线的电影级航拍镜头,镜头缓慢前推,夕阳的镜头光晕,环境城市声音,电影颗粒感,"
        "专业的色彩分级",
        8,
    ),
]


def config(name: str) -> JobFile:
    return load_jobs(CONFIGS / f"{name}.yaml")


def total(file: JobFile) -> Decimal:
    return sum((price(row.job, [built_in()]).amount for row in file.rows), Decimal())


def counts(file: JobFile) -> tuple[int, int]:
    kinds = [row.job.kind.value for row in file.rows]
    return kinds.count("image"), kinds.count("video")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_loads_and_says_how_to_run_it(path: Path) -> None:
    """Valid, priced without assumptions, and begun by its own command."""
    file = load_jobs(path)
    assert file.rows
    assert not any(price(row.job, [built_in()]).assumed for row in file.rows)
    head = path.read_text("utf-8").split("\n\n")[0]
    assert f"asyncpipe run configs/{path.name} --simulate" in head
    assert "2026-02-28" in head


def test_configs_have_a_folder_each() -> None:
    """Two of them run in one place must not take each other's folder."""
    folders = [load_jobs(path).settings.output_dir for path in FILES]
    assert len(set(folders)) == len(folders) == 10


@pytest.mark.parametrize(
    ("name", "images", "videos", "usd"),
    [
        ("scenario_social", 10, 5, "0.95"),
        ("scenario_launch", 20, 10, "3.20"),
        ("scenario_library", 50, 20, "7.50"),
        ("catalog_500", 500, 0, "20.00"),
        ("catalog_rows", 500, 0, "20.00"),
        ("scenario_film", 5, 5, "1.50"),
    ],
)
def test_scenarios_cost_what_the_article_says(
    name: str, images: int, videos: int, usd: str
) -> None:
    """The article's counts and totals at its own prices; the launch at what it truly is."""
    file = config(name)
    assert counts(file) == (images, videos)
    assert total(file) == Decimal(usd)
    assert f"{usd} USD" in (CONFIGS / f"{name}.yaml").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "usd"),
    [
        ("scenario_social", "0.95"),
        ("scenario_launch", "3.20"),
        ("scenario_library", "7.50"),
        ("scenario_film", "1.50"),
    ],
)
def test_offline_the_estimate_says_the_articles_figures(
    name: str, usd: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever key there is: nothing is asked."""
    assert run_command(["estimate", str(CONFIGS / f"{name}.yaml"), "--offline"]) == 0
    out = capsys.readouterr().out
    assert f"{usd} USD\nprices of" in out
    assert "from: built-in table of 2026-02-28" in out


def test_the_weekly_file_is_read_as_the_articles_program_reads_it() -> None:
    """Not a byte changed; what PyYAML makes of it is, field for field, what is sent."""
    text = (CONFIGS / "weekly.yaml").read_text("utf-8")
    printed = yaml.safe_load(text)
    assert sha256(text[text.index("# pipeline") :].encode()).hexdigest() == WEEKLY_AS_PRINTED
    file = config("weekly")
    assert [row.job.body for row in file.rows] == [
        {key: value for key, value in job.items() if key not in ("name", "type")}
        for job in printed["jobs"]
    ]
    assert [row.job.name for row in file.rows] == ["产品主图", "社交媒体视频", "电影广告"]
    assert str(file.settings.output_dir) == "weekly_content"
    assert file.settings.max_workers == 3


def test_the_launch_list_is_the_articles() -> None:
    """Names, prompts and durations of the printed Python list; nothing added to the body."""
    jobs = [row.job for row in config("launch_list").rows]
    assert [(job.name, job.prompt, job.params.get("duration")) for job in jobs] == ARTICLE_LIST
    assert all(set(job.params) <= {"duration"} for job in jobs)


def test_the_catalogs_use_fifty_workers() -> None:
    """500 images with 3 at a time would be a long show."""
    assert config("catalog_500").settings.max_workers == 50
    assert config("catalog_rows").settings.max_workers == 50


def test_the_catalog_of_rows_is_a_shops_table() -> None:
    """500 SKUs, each its own; every column is used or kept; prices come as labels."""
    file = config("catalog_rows")
    jobs = list(file.jobs)
    assert len({job.labels["sku"] for job in jobs}) == len({job.name for job in jobs}) == 500
    assert file.unused == ("supplier",)
    assert jobs[0].name == "WIR01-WH-1 无线蓝牙耳机"
    assert jobs[0].labels["price"] == "199.00 CNY"
    assert jobs[0].labels["supplier"] == "华南工厂"
