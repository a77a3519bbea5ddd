"""Planted: secrets and personal data that nobody has, one of each form, with the sentence in which each comes.

Keys are drawn from a fixed seed behind their published prefixes; numbers are those that the issuers publish as
examples, or are made to hold their check digits. None opens anything.
"""

import base64
import json
import random
from collections.abc import Callable, Mapping
from string import ascii_letters, ascii_uppercase, digits

_RNG = random.Random(20_261_129)  # reproducible examples, no secret
_ALNUM, _HEX, _URL = ascii_letters + digits, "0123456789abcdef", ascii_letters + digits + "-_"


def _draw(length: int, alphabet: str = _ALNUM) -> str:
    """Letters and digits of a key; the first three make sure that it has one of each kind."""
    head = "a7" if alphabet == _HEX else "A7" if alphabet.islower() is False and "a" not in alphabet else "aB7"
    return head[:length] + "".join(_RNG.choice(alphabet) for _ in range(length - len(head)))


def _token(facts: Mapping[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(facts).encode()).decode().rstrip("=")


_PEM = "\n".join(_draw(64) for _ in range(4))
_UPPER = ascii_uppercase + digits

SECRETS: dict[str, str] = {
    "openai": "the key is " + "sk-" + _draw(48),
    "openai project": "use " + "sk-proj-" + _draw(64, _URL),
    "openai service account": "use " + "sk-svcacct-" + _draw(64, _URL),
    "anthropic": "use " + "sk-ant-api03-" + _draw(80, _URL),
    "openrouter": "use " + "sk-or-v1-" + _draw(64, _HEX),
    "google api": "maps key " + "AIza" + "Sy" + _draw(33, _URL),
    "google oauth": "send " + "ya29." + _draw(60, _URL),
    "google service account": json.dumps(
        {"type": "service_account", "private_key": f"-----BEGIN PRIVATE KEY-----\n{_PEM}\n-----END PRIVATE KEY-----\n"}
    ),
    "aws key id": "id " + "AKIA" + _draw(16, _UPPER),
    "aws session key id": "id " + "ASIA" + _draw(16, _UPPER),
    "aws secret": "AWS_SECRET_ACCESS_KEY=" + _draw(40),
    "aws secret in words": "my aws secret access key is " + _draw(40),
    "github classic": "push with " + "ghp_" + _draw(36),
    "github oauth": "push with " + "gho_" + _draw(36),
    "github app": "push with " + "ghs_" + _draw(36),
    "github user": "push with " + "ghu_" + _draw(36),
    "github refresh": "push with " + "ghr_" + _draw(36),
    "github fine-grained": "push with " + "github_pat_" + _draw(22) + "_" + _draw(59),
    "gitlab": "clone with " + "glpat-" + _draw(20, _URL),
    "gitlab runner": "register " + "glrt-" + _draw(20, _URL),
    "gitlab deploy": "deploy with " + "gldt-" + _draw(20, _URL),
    "slack bot": "post with " + "xoxb-" + "123456789012-123456789012-" + _draw(24),
    "slack user": "post with " + "xoxp-" + "123456789012-123456789012-" + _draw(24),
    "slack app": "post with " + "xapp-" + "1-A01B2C3D4E5-1234567890123-" + _draw(64, _HEX),
    "slack webhook": "post to https://hooks." + "slack.com/services/T01ABCDEF/B01ABCDEF/" + _draw(24),
    "stripe": "charge with " + "sk_live_" + _draw(24),
    "stripe restricted": "charge with " + "rk_live_" + _draw(24),
    "stripe test": "charge with " + "sk_test_" + _draw(24),
    "stripe webhook": "verify with " + "whsec_" + _draw(32),
    "hugging face": "pull with " + "hf_" + _draw(34),
    "npm": "publish with " + "npm_" + _draw(36),
    "pypi": "publish with " + "pypi-" + "AgEIcHlwaS5vcmc" + _draw(80, _URL),
    "bearer": "Authorization: Bearer " + _draw(40),
    "basic": "Authorization: Basic " + base64.b64encode(b"admin:hunter22!").decode(),
    "pem rsa": f"-----BEGIN RSA PRIVATE KEY-----\n{_PEM}\n-----END RSA PRIVATE KEY-----",
    "pem openssh": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{_PEM}\n-----END OPENSSH PRIVATE KEY-----",
    "pem one line": f"-----BEGIN EC PRIVATE KEY-----\\n{_draw(64)}\\n-----END EC PRIVATE KEY-----",
    "pgp": f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{_PEM}\n-----END PGP PRIVATE KEY BLOCK-----",
    "jwt": "cookie " + ".".join((_token({"alg": "HS256"}), _token({"sub": "17", "n": "J"}), _draw(43, _URL))),
    "password is": "the password is hunter22",
    "password is a word": "my password is swordfish",
    "password is a phrase": "the password is correct-horse-battery-staple",
    "password after a name": "The WiFi password is sunflower.",
    "password of letters": "password: letmein",
    "password colon": "password: Tr0ub4dor&3",
    "pw": "user bob pw: k1tten99",
    "passwd": "passwd=9vLq2!x",
    "passwort": "mein Passwort lautet Gurke77!",
    "contraseña": "la contraseña es perro1234",
    "mot de passe": "le mot de passe est chat4567",
    "password in chinese": "密码是 abc12345",
    "password in json": json.dumps({"user": "bob", "password": "k1tten-99"}),
    "api key assignment": "API_KEY = '" + _draw(32) + "'",
    "client secret": "client_secret: " + _draw(32),
    "postgres": "postgres://app:" + "s3cr3t-pw" + "@db.internal:5432/shop",
    "mysql": "mysql://root:" + "s3cr3t" + "@10.0.0.5/shop",
    "mongodb": "mongodb+srv://app:" + "pa55word" + "@cluster0.ab1cd.mongodb.net/shop",
    "redis": "redis://:" + "s3cr3tpw" + "@cache:6379/0",
    "amqp": "amqps://svc:" + "s3cr3tpw" + "@mq:5671/%2f",
    "azure storage": "AccountName=shop;AccountKey=" + _draw(86) + "==;EndpointSuffix=core.windows.net",
    "azure sas": "https://shop.blob.core.windows.net/c?sv=2022-11-02&" + "sig=" + _draw(43) + "%3D",
    "azure client": "secret " + _draw(3) + "8Q~" + _draw(34),
    "sendgrid": "mail with " + "SG." + _draw(22, _URL) + "." + _draw(43, _URL),
    "twilio": "call with " + "SK" + _draw(32, _HEX),
    "digitalocean": "deploy with " + "dop_v1_" + _draw(64, _HEX),
    "discord bot": "bot token " + "M" + _draw(23) + "." + _draw(6) + "." + _draw(38),
    "telegram bot": "bot " + "1234567890:" + "AA" + _draw(33),
    "groq": "use " + "gsk_" + _draw(52),
    "xai": "use " + "xai-" + _draw(80),
    "ripieno": "use " + "rp-" + _draw(43, _URL),
}

PERSONAL: dict[str, str] = {
    "e-mail": "write to jane.doe@example.org",
    "e-mail with a plus": "write to jane+news@mail.example.co.uk please",
    "card with blanks": "my card is 4111 1111 1111 1111",
    "card with hyphens": "my card is 5500-0055-5555-5559",
    "card bare": "pay with 378282246310005",
    "card diners": "pay with 3056 930902 5904",
    "card unionpay": "pay with 6200000000000005",
    "iban": "pay to GB82 WEST 1234 5698 7654 32",
    "iban lower": "pay to de89370400440532013000",
    "iban mixed": "pay to Fr14 2004 1010 0505 0001 3m02 606",
    "ssn": "my number is 536-90-4399",
    "ssn bare": "my SSN is 536904399",
    "ssn with blanks": "536 90 4399 is on file",
    "ssn known as an example": "SSN 078-05-1120",
    "ein": "EIN: 12-3456789",
    "mx rfc": "RFC GODE561231GR8",
    "itin": "ITIN 912-70-1234",
    "phone with a code": "call +44 20 7946 0958 tomorrow",
    "phone with zeros": "call 0044 20 7946 0958 tomorrow",
    "phone german": "ruf an: +49 (0)30 901820",
    "phone us": "call me at (415) 555-2671",
    "phone us with dots": "415.555.2671 is the desk",
    "passport": "passport no. C01X00T47",
    "passport in words": "my passport number is 533401245",
    "passport machine-read": "L898902C36UTO7408122F1204159ZE184226B<<<<<10",
    "de tax id": "Steuer-ID 36 574 261 809",
    "fr nir": "2 95 10 99 126 111 93 is hers",
    "es dni": "DNI 54362315K",
    "es nie": "NIE X-2482300-W",
    "it codice fiscale": "codice RCCMNL83S18D969H",
    "gb nino": "NI number AB 12 34 56 C",
    "gb nhs": "NHS number 943 476 5870",
    "nl bsn": "BSN 111222333",
    "se personnummer": "880320-0016",
    "no fodselsnummer": "nummer 15108695088",
    "dk cpr": "CPR 211062-5629",
    "fi hetu": "131052-308T",
    "br cpf": "390.533.447-05",
    "in aadhaar": "Aadhaar 2341 2341 2346",
    "in pan": "PAN ACUPA7085R",
    "cn resident id": "身份证 11010519491231002X",
    "ca sin": "SIN: 123 456 782",
    "ch ahv": "756.9217.0769.85",
    "be national number": "85.07.30-033.28",
    "pl pesel": "PESEL 44051401359",
    "kr rrn": "970101-1234569",
    "driver's licence": "driver's license D1234567",
}

FORMS: dict[str, str] = SECRETS | PERSONAL

Body = dict[str, object]


def _user(text: str, **more: object) -> Body:
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **more}


def _tool(description: str = "finds", **parameters: object) -> Body:
    schema = {"type": "object", "properties": parameters}
    return {"type": "function", "function": {"name": "look_up", "description": description, "parameters": schema}}


def _called(arguments: str, result: str = "ok") -> list[Body]:
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
    return [
        {"role": "user", "content": "go on"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": result},
    ]


def _percent(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


CARRIERS: dict[str, Callable[[str], Body]] = {
    "message": lambda text: _user(f"Hello. {text}. Thank you."),
    "system message": lambda text: {
        "model": "auto",
        "messages": [{"role": "system", "content": text}, {"role": "user", "content": "go"}],
    },
    "earlier message": lambda text: {
        "model": "auto",
        "messages": [
            {"role": "user", "content": text},
            {"role": "assistant", "content": "noted"},
            {"role": "user", "content": "What is rice?"},
        ],
    },
    "content part": lambda text: {
        "model": "auto",
        "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}],
    },
    "tool argument": lambda text: {"model": "auto", "messages": _called(json.dumps({"query": text}))},
    "tool result": lambda text: {"model": "auto", "messages": _called("{}", f"found: {text}\nend")},
    "tool description": lambda text: _user("go on", tools=[_tool(f"Looks things up. {text}")]),
    "tool schema": lambda text: _user("go on", tools=[_tool(q={"type": "string", "default": text})]),
    "image url": lambda text: {
        "model": "auto",
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": f"https://x.test/a?q={_percent(text)}"}}],
            }
        ],
    },
    "file name": lambda text: {
        "model": "auto",
        "messages": [{"role": "user", "content": [{"type": "file", "file": {"filename": text, "file_data": "AAAA"}}]}],
    },
    "metadata": lambda text: _user("go on", metadata={"note": text}),
    "end user": lambda text: _user("go on", user=text),
    "name": lambda text: {"model": "auto", "messages": [{"role": "user", "name": text, "content": "go on"}]},
    "base64": lambda text: _user("read this: " + base64.b64encode(f"From the file: {text}".encode()).decode()),
    "base64 in base64": lambda text: _user(
        base64.b64encode(b"inner " + base64.b64encode(f"From the file: {text}".encode())).decode()
    ),
    "data url": lambda text: {
        "model": "auto",
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "file",
                        "file": {"file_data": "data:text/plain;base64," + base64.b64encode(text.encode()).decode()},
                    }
                ],
            }
        ],
    },
    "far behind": lambda text: _user("All is well here, thank you. " * 4000 + text),
    "answer format": lambda text: _user(
        "go on", response_format={"type": "json_schema", "json_schema": {"description": text}}
    ),
}
"""Bodies of `/v1/chat/completions` in which a text can come."""
