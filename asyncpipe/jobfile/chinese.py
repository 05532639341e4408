"""Whether bytes that GB18030 can be are Chinese, or as likely text in another encoding: pure.

Any two bytes of an Asian or Cyrillic text are some Chinese character. What tells them apart is how
often such characters are written: each encoding is scored by a rough table of that, over the very
same bytes.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping

COMMON = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里"
    "用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实"
    "日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政"
    "美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员"
    "解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件"
    "计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象"
    "完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运笔画图片照"
    "拍摄影背景素材风格写实卡通漫油水彩墨线描插海报封面标志红橙黄绿青蓝紫粉灰黑棕米杯瓶碗盘壶茶咖啡酒奶糖"
    "果蛋糕面包饭菜肉鱼虾猫狗鸟兔熊虎龙凤花草树木叶竹石沙雪雨云雾星夜晨晚春夏秋冬阳窗桌椅床柜灯镜钟表包箱"
    "袋鞋帽衣裙裤衫袜巾伞手机脑耳键盘鼠屏幕车船桥楼房城街村店室厨客厅园林湖河江岛岸滩田野瓷陶瓦玻璃银铜铁"
    "钢塑皮布丝棉毛纸款套装男童孩婴爸妈老旧复古典雅简约现代中式欧美日韩可爱甜酷炫亮暗浅深淡浓软硬大小长短"
    "宽窄厚薄轻圆方角尖弯直细粗双单个只把张支条件套盒号码价元售卖购买商店促销广告礼物节庆生快乐福喜寿年味香"
    "新鲜美味健康环保智能无线蓝牙充电池器具刀叉勺筷锅炉冰箱洗净空调扇热冷温暖凉编货型材质规格尺寸颜色产描述"
    "名称提示词主特写全近远仰俯视角镜头推移慢动作高清超质感柔逆侧顶自然光线氛围构图居中留文字透明底纯净简洁"
    "北京上海广州深圳杭成都重武汉西安南苏天津香港台湾长沙青岛厦门英法俄语版第章页行列表格数据测试例样"
)
"""Characters that most of a Chinese table of products, prompts or captions consists of."""

_HANGUL = frozenset(
    "이다는의에가을로하고한를은지사기도리인어아나자대시서그정수스일해라장부전과제있보상니게구여주원들안조공러경비도"
    "면신모마만위미오화으우성동소발치물트세생방실영요무관산식입히연선계진당용개문드간까후개바거반내회와학분심카중터명"
    "국유작불크르음호없추적결날머프재결질더달색양빨파란강검흰노랑초록보컵그잔병책상의침대꽃나무고양강토끼집차배길밤낮"
)

_MARKS = frozenset("，。、：；！？（）【】《》「」『』“”‘’…—·～％－＋／　０１２３４５６７８９")

_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa\u30fc]")

_NARROW_KANA = re.compile("[\uff61-\uff9f]")

_HANJA = re.compile("[\u3400-\u9fff]")

_ALPHABETS: Mapping[str, tuple[str, str]] = {
    "cp1251": ("\u0401-\u045f", "оеаинтсрвлкмдпуыягзбч"),
    "koi8-u": ("\u0401-\u045f", "оеаинтсрвлкмдпуыягзбч"),
    "cp866": ("\u0401-\u045f", "оеаинтсрвлкмдпуыягзбч"),
    "cp1253": ("\u0386-\u03ce", "αοιετσνηυρπκμλωςίόάέή"),
    "cp1255": ("\u05d0-\u05ea", "יוהלאתרבמשנעםדחקפכ"),
    "cp1256": ("\u060c-\u0652", "ايلونمرتبةعدسفهكقحجش"),
    "cp874": ("\u0e01-\u0e4d", "านรอกเงมยลวดทสตะปบคหแจพชข่้ิีัุู็"),
}
"""Encodings of one byte a character: the letters of their text, and the commonest of them."""

_STRANGE = math.log(1e-6)

_SURE = math.log(8)
"""The least logarithm of the odds with which text is taken for Chinese."""

Score = Callable[[str], float]


def looks_chinese(content: bytes) -> bool:
    """Whether ``content``, which GB18030 can be, is not as likely text in another encoding."""
    text = _odd(content, "gb18030")
    if text is None:
        return False
    rare = sum(_of_chinese(char) <= _STRANGE for char in text)
    if 3 * rare > len(text):
        return False
    ours = sum(map(_of_chinese, text))
    return all(ours - score > _SURE for score in map(_score, _OTHERS, [content] * len(_OTHERS)))


def _odd(content: bytes, encoding: str) -> str | None:
    """What is not ASCII in it; None where it is not of that encoding."""
    try:
        return "".join(char for char in content.decode(encoding) if char > "\x7f")
    except UnicodeDecodeError:
        return None


def _score(encoding: str, content: bytes) -> float:
    text = _odd(content, encoding)
    return -math.inf if text is None else _OTHERS[encoding](text)


def _level(char: str) -> int:
    """1 for the 3755 characters that GB2312 sorts by sound, 2 for its rarer ones, 3 beyond."""
    try:
        lead = char.encode("gb2312")[0]
    except UnicodeEncodeError:
        return 3
    return 1 if lead < 0xD8 else 2


def _of_chinese(char: str) -> float:
    if char in COMMON:
        return math.log(0.75 / len(COMMON))
    if char in _MARKS:
        return math.log(0.05 / len(_MARKS))
    if _HANJA.match(char):
        return math.log((0.18 / 3000, 0.01 / 3000, 0.01 / 20000)[_level(char) - 1])
    return _STRANGE


def _of_korean(text: str) -> float:
    return sum(map(_korean, text))


def _korean(char: str) -> float:
    if char in _HANGUL:
        return math.log(0.65 / len(_HANGUL))
    if "\uac00" <= char <= "\ud7a3":
        return math.log(0.3 / 2200)
    if char in _MARKS:
        return math.log(0.03 / len(_MARKS))
    return math.log(0.005 / 4900) if _HANJA.match(char) else _STRANGE


def _of_japanese(text: str) -> float:
    if text and all(map(_NARROW_KANA.match, text)):
        return len(text) * math.log(1 / 50)
    return sum(map(_japanese, text))


def _japanese(char: str) -> float:
    if _KANA.match(char):
        return math.log(0.65 / 120)
    if char in _MARKS:
        return math.log(0.04 / len(_MARKS))
    return math.log(0.3 / 3500) if _HANJA.match(char) else _STRANGE


def _of_taiwan(text: str) -> float:
    return sum(map(_taiwanese, text))


def _taiwanese(char: str) -> float:
    if not (_HANJA.match(char) or char in _MARKS):
        return _STRANGE
    often = char.encode("big5")[0] < 0xC9
    return math.log(0.97 / 5000 if often else 0.03 / 7600)


def _spelled(letters: str, common: str) -> Score:
    """For an alphabet: its letters are likely, but no capital after a small one, nor two marks."""
    known, often = re.compile(f"[{letters}]"), math.log(0.85 / len(common))

    def score(text: str) -> float:
        total, before = 0.0, "\u0e01"
        for char in text:
            odd = before.islower() and char.isupper()
            odd |= unicodedata.category(char) == "Mn" == unicodedata.category(before)
            rare = math.log(0.15 / 60) if known.match(char) else math.log(1e-5)
            total += often if char.lower() in common else rare
            total += math.log(1 / 20) if odd else 0.0
            before = char
        return total

    return score


_OTHERS: dict[str, Score] = {
    "cp949": _of_korean,
    "cp932": _of_japanese,
    "euc_jp": _of_japanese,
    "big5": _of_taiwan,
    **{encoding: _spelled(*letters) for encoding, letters in _ALPHABETS.items()},
}
