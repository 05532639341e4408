"""``asyncpipe init``: a commented job file to start from."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from asyncpipe.errors import UsageError
from asyncpipe.jobfile import TITLE, job_file_schema
from asyncpipe.providers import key_variable

_EN = """\
# A job file: what asyncpipe is to make. Try it without key, network or money:
#   asyncpipe run {name} --simulate
# For real: set {key}, look at `asyncpipe estimate {name}`, leave --simulate out.

output_dir: pipeline_output     # where images/, videos/, audio/ and manifest.json go
                                # (weekly/{{date}} or {{week}}: a folder of its own each time)
max_workers: 3                  # most predictions in flight at once

defaults:                       # every job takes these where it says nothing itself
  image:
    model: black-forest-labs/flux-2-pro/text-to-image
    width: 1024
    height: 1024

# max_cost: 20                  # USD; never more than this in this folder
# min_balance: 5                # USD; submit nothing while the account has less
# prices:                       # USD; where the provider has no quote of its own
#   some/model: {{per_image: 0.04}}    # or per_second: 0.1, or per_job: 0.5
#   other/model:
#     per_second: 0.2
#     tiers: [{{audio: true, per_second: 0.4}}]    # or resolution: 4k, or size: 1024x1024

# rows: catalog.csv             # one job per row: "{{sku}}" in a job is its cell of column sku

jobs:
  - name: Mug on oak
    type: image
    prompt: >
      A white ceramic mug on an oak table, soft window light, product photo

  - name: Mug in the rain
    type: image
    prompt: The same mug on a wet window sill, rain outside, moody light
    # image: photos/mug.jpg     # a file beside this one is uploaded, for models that take one
    params:                     # the model's own fields, sent as they are
      seed: 7

  - name: Mug clip
    model: bytedance/seedance-v1.5-pro/text-to-video    # the model id tells the type
    prompt: Steam rises from the mug, the camera moves in slowly
    duration: 4                 # seconds
    resolution: 720p
"""

_ZH = """\
# 任务文件:写明要生成什么。先在模拟器上试跑,不需要密钥、网络,也不花钱:
#   asyncpipe run {name} --simulate
# 正式运行:设置 {key},先看 `asyncpipe estimate {name}`,再去掉 --simulate。

output_dir: pipeline_output     # 图片、视频、音频和 manifest.json 存放的文件夹
                                # (weekly/{{date}} 或 {{week}}:每次一个新文件夹)
max_workers: 3                  # 同时进行的生成数上限

defaults:                       # 任务没有写的字段用这里的
  image:
    model: black-forest-labs/flux-2-pro/text-to-image
    width: 1024
    height: 1024

# max_cost: 20                  # 美元;此文件夹的总费用不超过这个数
# min_balance: 5                # 美元;账户余额低于这个数时不提交
# prices:                       # 美元;平台不报价的模型需要写在这里
#   some/model: {{per_image: 0.04}}    # 或 per_second: 0.1,或 per_job: 0.5
#   other/model:
#     per_second: 0.2
#     tiers: [{{audio: true, per_second: 0.4}}]    # 或 resolution: 4k,或 size: 1024x1024

# rows: catalog.csv             # 表格每行生成一个任务:任务里的 "{{sku}}" 取该行 sku 列的内容

jobs:
  - name: 白瓷杯
    type: image
    prompt: >
      橡木桌上的白瓷马克杯,柔和的窗光,产品摄影

  - name: 雨中的杯子
    type: image
    prompt: 同一只杯子放在湿润的窗台上,窗外下雨,氛围光
    # image: photos/mug.jpg     # 与本文件同目录的图片会自动上传(用于支持输入图的模型)
    params:                     # 模型自己的参数,原样发送
      seed: 7

  - name: 杯子短片
    model: bytedance/seedance-v1.5-pro/text-to-video    # 由模型名可知类型
    prompt: 热气从杯中升起,镜头缓缓推近
    duration: 4                 # 秒
    resolution: 720p
"""

SCHEMA_NAME = "asyncpipe.schema.json"
"""The file beside a job file by which editors check and complete it, without any network."""


def schema_text() -> bytes:
    """The JSON Schema of a job file, as ``asyncpipe schema`` prints it."""
    return orjson.dumps(job_file_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _link(folder: Path) -> str:
    """Write the schema beside the job file; the line that links it, or none where it cannot be."""
    path = folder / SCHEMA_NAME
    try:
        if path.exists() and TITLE.encode() not in path.read_bytes():
            return ""  # somebody else's file
        path.write_bytes(schema_text())
    except OSError:
        return ""
    return f"# yaml-language-server: $schema={SCHEMA_NAME}\n"


def write_job_file(path: Path, *, lang: str, force: bool) -> None:
    """Write the template; raises UsageError when a file is there already."""
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(f"{path}: the template is YAML, name it like jobs.yaml")
    if path.exists() and not force:
        raise UsageError(f"{path} is there already: choose another name, or --force to replace it")
    text = (_ZH if lang == "zh" else _EN).format(name=path, key=key_variable())
    try:
        path.write_text(_link(path.parent) + text, encoding="utf-8", newline="\n")
    except OSError as exc:
        raise UsageError(f"{path} cannot be written: {exc.strerror or exc}") from exc
    click.echo(f"{path} written. Try it: asyncpipe run {path} --simulate")
