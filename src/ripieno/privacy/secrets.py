"""Secrets: the forms of keys, tokens and passwords.

The prefixes are those that vendors publish for secret scanning. Patterns that could match a word have a check.
"""

import re
from collections.abc import Iterator

from ripieno.privacy.rules import Retry, SensitivityRule, list_literals

_EDGE = r"(?:^|[^A-Za-z0-9])"
"""Text before a key, because RE2 has no look-behind."""

PREFIXES: tuple[tuple[str, str, str], ...] = (
    ("anthropic", "sk-ant-", r"[A-Za-z0-9_-]{16,}"),
    ("openrouter", "sk-or-", r"[A-Za-z0-9_-]{16,}"),
    ("openai", "sk-proj- sk-svcacct- sk-admin-", r"[A-Za-z0-9_-]{16,}"),
    ("google", "AIza 1//0", r"[A-Za-z0-9_-]{30,}"),
    ("google", "ya29. GOCSPX-", r"[A-Za-z0-9_-]{20,}"),
    ("github", "ghp_ gho_ ghu_ ghs_ ghr_", r"[A-Za-z0-9]{30,}"),
    ("github", "github_pat_", r"[A-Za-z0-9_]{22,}"),
    ("gitlab", "glpat- glrt-", r"[A-Za-z0-9_.-]{20,}"),
    ("gitlab", "gldt- glptt- GR1348941", r"[A-Za-z0-9_-]{20,}"),
    ("gitlab", "glcbt- glft- glimt- glsoat-", r"[A-Za-z0-9_-]{16,}"),
    ("gitlab", "glagent- gloas-", r"[A-Za-z0-9_-]{30,}"),
    ("slack", "xapp-", r"\d-[A-Za-z0-9]{6,}-\d{6,}-[A-Za-z0-9]{10,}"),
    ("slack", "hooks.slack.com/", r"(?:services|workflows|triggers)/[A-Za-z0-9/_+-]{15,}"),
    ("stripe", "sk_live_ sk_test_ rk_live_ rk_test_", r"[A-Za-z0-9]{10,}"),
    ("stripe", "whsec_", r"[A-Za-z0-9+/=]{20,}"),
    ("huggingface", "hf_", r"[A-Za-z0-9]{20,}"),
    ("huggingface", "api_org_", r"[A-Za-z0-9]{30,}"),
    ("npm", "npm_", r"[A-Za-z0-9]{30,}"),
    ("pypi", "pypi-AgE", r"[A-Za-z0-9_-]{30,}"),
    ("rubygems", "rubygems_", r"[a-f0-9]{48}"),
    ("groq", "gsk_", r"[A-Za-z0-9]{20,}"),
    ("xai", "xai-", r"[A-Za-z0-9]{20,}"),
    ("perplexity", "pplx-", r"[A-Za-z0-9]{20,}"),
    ("nvidia", "nvapi-", r"[A-Za-z0-9_-]{20,}"),
    ("replicate", "r8_", r"[A-Za-z0-9]{30,}"),
    ("tavily", "tvly-", r"[A-Za-z0-9-]{20,}"),
    ("langsmith", "lsv2_", r"(?:pt|sk)_[A-Za-z0-9_]{20,}"),
    ("digitalocean", "dop_v1_ doo_v1_ dor_v1_", r"[a-f0-9]{32,}"),
    ("sendgrid", "SG.", r"[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    ("databricks", "dapi", r"[a-f0-9]{32}(?:-\d)?"),
    ("shopify", "shpat_ shpss_ shpca_ shppa_", r"[a-fA-F0-9]{32}"),
    ("mailgun", "key-", r"[a-f0-9]{32}"),
    ("linear", "lin_api_", r"[A-Za-z0-9]{30,}"),
    ("notion", "ntn_", r"[A-Za-z0-9]{30,}"),
    ("notion", "secret_", r"[A-Za-z0-9]{43}"),
    ("figma", "figd_", r"[A-Za-z0-9_-]{30,}"),
    ("postman", "PMAK-", r"[a-f0-9]{24}-[a-f0-9]{34}"),
    ("vault", "hvs.", r"[A-Za-z0-9_-]{20,}"),
    ("terraform", ".atlasv1.", r"[A-Za-z0-9_-]{30,}"),
    ("grafana", "glsa_", r"[A-Za-z0-9]{20,}_[a-f0-9]{8}"),
    ("grafana", "glc_", r"[A-Za-z0-9+/]{30,}"),
    ("sentry", "sntrys_", r"[A-Za-z0-9_=+/-]{30,}"),
    ("newrelic", "NRAK-", r"[A-Z0-9]{27}"),
    ("supabase", "sbp_", r"[a-f0-9]{40}"),
    ("planetscale", "pscale_", r"(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{30,}"),
    ("atlassian", "ATATT3", r"[A-Za-z0-9_=-]{30,}"),
    ("age", "AGE-SECRET-KEY-1", r"[A-Z0-9]{58}"),
    ("square", "sq0csp-", r"[A-Za-z0-9_-]{30,}"),
    ("square", "sq0atp-", r"[A-Za-z0-9_-]{20,}"),
    ("ripieno", "rp-", r"[A-Za-z0-9_-]{30,}"),
)
"""Vendor, its prefixes, and the pattern of the rest."""

_NAME = (
    r"api[_ .-]?key|apikey|secret[_ .-]?(?:access[_ .-]?)?key|access[_ .-]?key|private[_ .-]?key|client[_ .-]?secret|"
    r"auth[_ .-]?token|access[_ .-]?token|refresh[_ .-]?token|signing[_ .-]?secret|secret|token|credentials?"
)
_NAMES_OF_PASSWORDS = (
    r"password|passwd|passphrase|passcode|passwort|kennwort|contrase(?:ñ|n)a|mot de passe|senha|wachtwoord|"
    r"lösenord|adgangskode|salasana|hasło|пароль|密码|密碼|パスワード|비밀번호|pin code|pin-code"
)
_SHORT_NAMES = r"pwd|pw"
_PASSWORD = rf"(?:(?i:{_NAMES_OF_PASSWORDS})|(?:^|[^A-Za-z])(?i:{_SHORT_NAMES}))"
_TRIGGERS = list_literals(f"{_NAMES_OF_PASSWORDS}|{_SHORT_NAMES}")
_MARK = r":=|=>|[:=：＝]"
_IS = r"(?i:is|was|are|ist|war|lautet|es|est|è|é|är|er|on)"
_PLACEHOLDER = re.compile(
    r"(?i)^(?:\$|%[({]|<|\{|\[|\(|\*+$|\.{2,}|x{3,}$|#|your|my_|enter|change[_-]?me|example|placeholder|redacted|none\b|null\b|nil\b"
    r"|true\b|false\b|undefined|str(?:ing)?\b|int\b|bool|bytes\b|text\b|any\b|optional|required|process\.|os\.|env|self\.|input|get|request|args|config|settings"
    r"|password|passwd|passphrase|secret|token|user|hash|encrypt|self)"
)
_CODE = re.compile(r"[()\[\]{}<>]|\w\.\w+\.|^[a-z_]+(?:\.[a-z_]+)+$|->|&&|\|\||==|::")
_PLAIN = frozenset(
    """
    a an the not too at in on for to of from by with and or but if when where what which that this it its his
    her their our your my being been so very also only just now then here there case-sensitive incorrect correct
    wrong right valid invalid required optional weak strong secure safe unsafe insecure stored saved hashed
    encrypted salted sent set reset changed expired empty missing blank null none used reused known unknown
    unique same different short long longer shorter complex simple easy hard good bad visible hidden protected
    provided given entered typed displayed shown checked verified validated accepted rejected needed necessary
    important usually always never often still already generated created stolen leaked lost forgotten
    compromised exposed shared correctly properly case sensitive free available about between more less most
    least random made something anything nothing everything one two three string text value field variable
    parameter whatever how why who as is was are be will would should can could may might must has have had do
    does did no yes true false obligatoire incorrecto incorrecta falsch richtig sicher unsicher erforderlich
    notwendig vergessen abgelaufen ungültig oublié expiré requis faux segura seguro
    """.split()  # noqa: SIM905  # a list of 150 words is no easier to read
)
"""Words that follow `password is` in ordinary sentences."""


def list_rules() -> Iterator[SensitivityRule]:
    """Yield a rule for each form of secrets."""
    for vendor, prefixes, rest in PREFIXES:
        for prefix in prefixes.split():
            edge = "" if prefix[0] in "./" or prefix.startswith(("hooks", "1//")) else _EDGE
            yield SensitivityRule(
                form=f"{vendor} key",
                pattern=rf"{edge}({re.escape(prefix)}{rest})",
                triggers=(prefix.lower(),),
                check=_is_no_word if prefix in ("rp-", "key-", "secret_", "sk-or-") else None,
            )
    yield from _SPECIAL


def _is_no_word(value: str) -> bool:
    """Return whether a text has letters and digits. Words joined by hyphens have no digits."""
    return any(map(str.isdigit, value)) and any(map(str.isalpha, value))


def _is_mixed(value: str) -> bool:
    return any(map(str.isdigit, value)) and any(map(str.isupper, value)) and any(map(str.islower, value))


def _is_token(value: str) -> bool:
    """Return whether text after a key's name is a key: long, of letters and digits, and not program code."""
    if len(value) < 12 or _PLACEHOLDER.match(value) or _CODE.search(value):
        return False
    digits = sum(map(str.isdigit, value))
    letters = sum(map(str.isalpha, value))
    is_spread = len(set(value)) >= 8 and digits >= 2 and letters >= 3
    words = re.split(r"[_\-./:]", value)
    return is_spread and any(len(word) >= 8 and _is_no_word(word) for word in words)


def _is_password(value: str) -> bool:
    """Return whether text after `password =` is a password."""
    value = value.rstrip(".!?…。")
    if len(value) < 4 or _PLACEHOLDER.match(value) or _CODE.search(value) or value.lower() in _PLAIN:
        return False
    has_digit = any(map(str.isdigit, value))
    has_mark = any(not each.isalnum() and each not in "_-." for each in value)
    return has_digit or has_mark or (len(value) >= 6 and value.lower() != value and not value[1:].islower())


def _cut(value: str) -> str:
    """Cut the closing quotes, and the end of a sentence or of JSON, off a word."""
    opening = len(value) - len(value.lstrip("\"'“”`*"))
    closing = re.search(r"[\"'”`}\])*]|[.!?,;:…。]+$", value[opening:])
    return value[: opening + closing.start()] if closing is not None else value


def _is_said(value: str) -> bool:
    """Return whether text after `password is` is a password: it has a digit or a mark."""
    bare = value.strip("\"'“”`*")
    is_phrase = bare.count("-") + bare.count("_") >= 2 and not bare.startswith("-")
    return bare.lower() not in _PLAIN and (_is_password(bare) or (is_phrase and not _CODE.search(bare)))


def _is_told(value: str) -> bool:
    """Return whether a word at the end of `my password is` is a password."""
    bare = value.strip("\"'“”`*")
    return len(bare) >= 4 and bare.lower() not in _PLAIN and not bare.lower().endswith(("ed", "ing", "ly"))


def _is_chosen(value: str) -> bool:
    """Return whether a word at the end of `password:` is a password, not part of a form or schema."""
    return value not in _PLAIN and not _PLACEHOLDER.match(value)


def _is_login(value: str) -> bool:
    return not re.match(r"^(?:\$|\{|<|\*|%7B|x{3,}$|\.\.\.)", value)


def _is_session(value: str) -> bool:
    return _is_no_word(value) and not _PLACEHOLDER.match(value)


_SPECIAL = (
    SensitivityRule(
        form="openai key",
        pattern=_EDGE + r"(sk-[A-Za-z0-9_-]{20,})",
        triggers=("sk-",),
        check=_is_no_word,
    ),
    SensitivityRule(
        form="aws key id",
        pattern=_EDGE + r"((?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16})(?:[^A-Za-z0-9]|$)",
        triggers=("akia", "asia", "abia", "acca"),
    ),
    SensitivityRule(
        form="aws secret key",
        pattern=(
            r"(?i:aws|secret|access[_ -]?key)(?:[^\n]{0,40}[^A-Za-z0-9/+\n]|[^\n]{0,12}\n[^\n]{0,24}[^A-Za-z0-9/+\n])"
            r"([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+]|$)"
        ),
        triggers=("aws", "secret", "access"),
        check=_is_mixed,
        retry=Retry.START,
    ),
    SensitivityRule(
        form="slack token", pattern=_EDGE + r"(xox[a-z]-[A-Za-z0-9-]{10,})", triggers=("xox",), check=_is_no_word
    ),
    SensitivityRule(
        form="bearer token",
        pattern=r"(?i:bearer)(?:\s+|%20|\+)([A-Za-z0-9._~+/=-]{12,})",
        triggers=("bearer",),
        check=_is_session,
    ),
    SensitivityRule(
        form="authorization header",
        pattern=r"(?i:authorization)[\"']?\s*[:=]\s*[\"']?(?i:basic|token|apikey|digest)\s+([A-Za-z0-9._~+/=-]{8,})",
        triggers=("authorization",),
        check=lambda value: not _PLACEHOLDER.match(value),
    ),
    SensitivityRule(
        form="private key",
        pattern=r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
        triggers=("private key",),
        goes_on=(
            r"(?:[A-Za-z0-9+/=\s\\:,.()]|-[A-Za-z0-9])*-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
            r"|[A-Za-z0-9+/=\s\\]*"
        ),
    ),
    SensitivityRule(form="private key", pattern=r"PuTTY-User-Key-File-\d", triggers=("putty-user-key-file",)),
    SensitivityRule(
        form="json web token",
        pattern=_EDGE + r"(eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*)",
        triggers=("eyj",),
    ),
    SensitivityRule(
        form="url with a password",
        pattern=r"://[^\s/:@\"'<>]*:([^\s/@\"'<>]{3,})@[A-Za-z0-9\[_.-]",
        triggers=("://",),
        check=_is_login,
    ),
    SensitivityRule(
        form="azure key",
        pattern=(
            r"(?i:AccountKey|SharedAccessKey|SharedSecretValue)\s*[=:]\s*([A-Za-z0-9+/]{20,}={0,2})"
            r"|[?&;]sig=([A-Za-z0-9%+/_-]{30,})"
            r"|([A-Za-z0-9_~.-]{3}[78]Q~[A-Za-z0-9_~.-]{31,34})"
        ),
        triggers=("accountkey", "sharedaccesskey", "sharedsecretvalue", "sig=", "8q~", "7q~"),
    ),
    SensitivityRule(
        form="discord token",
        pattern=(
            _EDGE + r"([MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40})"
            r"|discord(?:app)?\.com/api/webhooks/\d{10,}/([A-Za-z0-9_-]{40,})"
        ),
        triggers=("discord", "bot", "token"),
        check=_is_mixed,
        retry=Retry.START,
    ),
    SensitivityRule(
        form="telegram token",
        pattern=r"(?:^|[^0-9])(\d{8,10}:[A-Za-z0-9_-]{35})(?:[^A-Za-z0-9_-]|$)",
        triggers=(":aa", "telegram", "bot"),
        check=_is_mixed,
        retry=Retry.START,
    ),
    SensitivityRule(
        form="twilio key",
        pattern=_EDGE + r"((?:SK|AC)[a-f0-9]{32})(?:[^A-Za-z0-9]|$)",
        alphabet="hexadecimal",
    ),
    SensitivityRule(
        form="mailchimp key",
        pattern=r"\b([a-f0-9]{32}-us\d{1,2})\b",
        triggers=("-us",),
    ),
    SensitivityRule(
        form="named key",
        pattern=rf"(?i:{_NAME})[\"'`]?\s*(?:{_MARK}|\b(?i:is|was|ist|est|es)\b)\s*[\"'`]?([A-Za-z0-9_\-./+=~!@#%^&*:]{{12,96}})",
        triggers=("key", "secret", "token", "credential"),
        check=_is_token,
        retry=Retry.START,
    ),
    SensitivityRule(
        form="password",
        pattern=(
            rf"(?:(?i:{_NAMES_OF_PASSWORDS})|(?:^|[^A-Za-z])(?i:{_SHORT_NAMES}|pass))[\"'`*_]*"
            rf"\s*(?:{_MARK})\s*[\"'“`]?([^\s\"'`“”,;<>]{{4,64}})"
        ),
        triggers=(*_TRIGGERS, "pass"),
        check=_is_password,
        retry=Retry.START,
    ),
    SensitivityRule(
        form="password",
        pattern=(
            rf"{_PASSWORD}"
            rf"(?:\s+(?i:for|of|to|für|de|pour|para)\s+[^\n:=.]{{1,40}})?\s+{_IS}\s*[:：]?\s+([^\s<>]{{4,64}})"
        ),
        triggers=_TRIGGERS,
        trim=_cut,
        check=_is_said,
        retry=Retry.START,
    ),
    SensitivityRule(
        form="password",
        pattern=(
            rf"(?i:my|our|the|his|her|their|mein|das|unser|mon|le|notre|mi|la|nuestra|minha|a)\s+(?:[A-Za-z-]+\s+)?(?i:{_NAMES_OF_PASSWORDS}|{_SHORT_NAMES})\s+{_IS}\s*[:：]?\s+"
            r"([^\s<>]{4,64})(?:\s*$|[.!,;]?\s*\n|[.!,;](?:\s|$)|\s+(?:and|und|et|y|but|please|so)\b)"
        ),
        triggers=_TRIGGERS,
        trim=_cut,
        check=_is_told,
        retry=Retry.START,
    ),
    SensitivityRule(
        form="password",
        pattern=(
            rf"{_PASSWORD}[\"'`*_]*"
            rf"\s*(?:{_MARK})\s*[\"'“`]?([a-z]{{5,32}})(?:[\"'`”,;&]|[.!]?[ \t]*(?:[\r\n]|$)|\.\s)"
        ),
        triggers=_TRIGGERS,
        check=_is_chosen,
        retry=Retry.START,
    ),
    SensitivityRule(
        form="password",
        pattern=r"(?:密码|密碼|パスワード|비밀번호)(?:是|为|為|は|는|은)\s*([!-~]{4,64})",
        triggers=("密码", "密碼", "パスワード", "비밀번호"),
        trim=_cut,
        check=_is_said,
        retry=Retry.START,
    ),
)
