"""What is told to whom: bodies to the letter, targets as they are written, and what is refused."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from standardwebhooks import Webhook

from asyncpipe.errors import UsageError
from asyncpipe.webhooks.notice import (
    Notice,
    NoticeFormat,
    Notify,
    Occasion,
    Recipient,
    refused_by,
    request_of,
    variables_of,
)
from tests.support.signed import AT, NOW, SECRET

NOTICE = Notice(
    occasion=Occasion.ENDED,
    at=NOW,
    text="2 of 3 <succeeded> & 杯",
    facts={"total": 3, "failed": None, "simulated": True, "folder": "out"},
)


def only(text: str, **options: Any) -> Recipient:
    (found,) = Notify(urls=[text], **options).targets
    return found


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("https://hooks.slack.com/services/T0/B0/x", NoticeFormat.SLACK),
        ("https://open.feishu.cn/open-apis/bot/v2/hook/x", NoticeFormat.FEISHU),
        ("https://me.example/hook", NoticeFormat.STANDARD),
        ("https://hooks.slack.com.me.example/x", NoticeFormat.STANDARD),
        ("slack:https://me.example/hook", NoticeFormat.SLACK),
        ("feishu: https://me.example/hook", NoticeFormat.FEISHU),
        ("standard:https://hooks.slack.com/x", NoticeFormat.STANDARD),
        ("slack:$CHAT", NoticeFormat.SLACK),
        ("${CHAT}", NoticeFormat.STANDARD),
        ("http://127.0.0.1:8000/x", NoticeFormat.STANDARD),
    ],
)
def test_the_format_goes_by_prefix_then_host(
    text: str, form: NoticeFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a whole URL may be in the environment."""
    monkeypatch.setenv("CHAT", "https://me.example/hook")
    assert only(text).format is form


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://me.example/hook", "is not told"),
        ("https://10.1.2.3/hook", "is not told"),
        ("https://localhost.me.internal/hook", "is not told"),
        ("https://169.254.169.254/latest", "is not told"),
        ("https://2130706433/x", "is not told"),
        ("https://me.example:99999/", "no URL that can be read"),
        ("teams:https://me.example/", "write an https URL"),
        ("ftp://me.example/", "write an https URL"),
        ("$NOT_SET", "NOT_SET is not set"),
        ("", "write an https URL"),
    ],
)
def test_only_public_hosts_over_https_are_told(text: str, why: str) -> None:
    """Unless they are said to be the user's own; the URL, a secret, is not repeated."""
    with pytest.raises(UsageError, match=why) as caught:
        only(text)
    assert "latest" not in str(caught.value)
    if why == "is not told":
        assert only(text, private=True).inside


def test_a_secret_stands_in_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named; what signs is no chat's affair."""
    monkeypatch.setenv("MINE", SECRET)
    assert only("https://me.example/", secret="$MINE").secret == SECRET
    assert only("slack:https://me.example/", secret="$MINE").secret is None
    for said in (SECRET, "MINE"):
        with pytest.raises(UsageError, match="name an environment variable") as caught:
            only("https://me.example/", secret=said)
        assert SECRET not in str(caught.value)
    with pytest.raises(UsageError, match="OTHERS is not set"):
        only("https://me.example/", secret="$OTHERS")
    monkeypatch.setenv("MINE", "too short")
    with pytest.raises(UsageError, match="whsec_"):
        only("https://me.example/", secret="$MINE")
    assert Notify(urls=["https://me.example/", "slack:https://b.example/"]).unsigned == [
        "me.example"
    ]
    monkeypatch.setenv("ASYNCPIPE_NOTIFY_SECRET", SECRET)
    assert Notify(urls=["https://me.example/"]).unsigned == []


def test_nothing_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither URL nor secret, in a repr."""
    monkeypatch.setenv("ASYNCPIPE_NOTIFY_SECRET", SECRET)
    shown = repr(only("https://me.example/token"))
    assert "token" not in shown
    assert SECRET not in shown


def test_bodies_to_the_letter() -> None:
    """Slack's three characters are escaped; Feishu's and the standard's text stays as it is."""
    slack, _ = request_of(only("slack:https://a.example/"), NOTICE, "msg_1", AT)
    assert json.loads(slack) == {"text": "2 of 3 &lt;succeeded&gt; &amp; 杯"}
    feishu, _ = request_of(only("feishu:https://a.example/"), NOTICE, "msg_1", AT)
    assert json.loads(feishu) == {"msg_type": "text", "content": {"text": NOTICE.text}}
    standard, headers = request_of(only("https://a.example/"), NOTICE, "msg_1", AT)
    assert json.loads(standard) == {
        "type": "asyncpipe.run.ended",
        "timestamp": "2025-11-28T15:00:00+00:00",
        "data": {**NOTICE.facts, "text": NOTICE.text},
    }
    assert headers == {
        "Content-Type": "application/json",
        "webhook-id": "msg_1",
        "webhook-timestamp": str(AT),
    }


def test_the_standards_package_takes_what_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a secret of whoever listens."""
    monkeypatch.setenv("ASYNCPIPE_NOTIFY_SECRET", SECRET)
    at = int(time.time())
    body, headers = request_of(only("https://a.example/"), NOTICE, "msg_1", at)
    assert Webhook(SECRET).verify(body, headers)["type"] == "asyncpipe.run.ended"


@pytest.mark.parametrize(
    ("text", "status", "body", "refused"),
    [
        ("https://a.example/", 204, b"", None),
        ("https://a.example/", 302, b"", "it answered 302"),
        ("slack:https://a.example/", 404, b"no_service", "it answered 404"),
        ("feishu:https://a.example/", 200, b'{"code":0,"msg":"success"}', None),
        ("feishu:https://a.example/", 200, b'{"code":19001,"msg":"x"}', "it answered code 19001"),
        ("feishu:https://a.example/", 200, b"ok", None),
    ],
)
def test_what_is_no_success(text: str, status: int, body: bytes, refused: str | None) -> None:
    """Feishu says so under a 200."""
    assert refused_by(only(text), status, body) == refused


def test_a_command_finds_facts_in_its_environment() -> None:
    """Those that are known; no truth values."""
    assert variables_of(NOTICE) == {
        "ASYNCPIPE_EVENT": "run.ended",
        "ASYNCPIPE_TEXT": NOTICE.text,
        "ASYNCPIPE_RUN_TOTAL": "3",
        "ASYNCPIPE_RUN_FOLDER": "out",
    }
    assert Notify(command="aws s3 sync 'my out' s3://b").argv[2:4] == ("sync", "my out")
    for wrong in ("", "say 'half"):
        with pytest.raises(UsageError, match="--exec"):
            Notify(command=wrong)
