"""HAR 1.2 (http://www.softwareishard.com/blog/har-12-spec/) as a JSON schema, strict in what the format names.

Names that begin with an underscore are everybody's own; any other that the format does not know is a mistake.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WORD: Schema = {"type": "string", "minLength": 1}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": -1}
TIME: Schema = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d)$"}
SPAN: Schema = {"type": "number", "minimum": 0}
SPAN_OR_NONE: Schema = {"anyOf": [SPAN, {"const": -1}]}


def record(required: Schema, **optional: Schema) -> Schema:
    return {
        "type": "object",
        "required": sorted(required),
        "properties": {**required, **optional, "comment": TEXT},
        "patternProperties": {"^_": {}},
        "additionalProperties": False,
    }


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


NAMED = record({"name": TEXT, "value": TEXT})
COOKIE = record(
    {"name": TEXT, "value": TEXT},
    path=TEXT,
    domain=TEXT,
    expires=TIME,
    httpOnly={"type": "boolean"},
    secure={"type": "boolean"},
)
MESSAGE: Schema = {
    "httpVersion": WORD,
    "cookies": array(COOKIE),
    "headers": array(NAMED),
    "headersSize": COUNT,
    "bodySize": COUNT,
}
REQUEST = record(
    {"method": WORD, "url": {"type": "string", "pattern": "^https?://"}, "queryString": array(NAMED), **MESSAGE},
    postData=record({"mimeType": TEXT}, text=TEXT, params=array(record({"name": TEXT}, value=TEXT))),
)
CONTENT = record({"size": COUNT, "mimeType": TEXT}, compression={"type": "integer"}, text=TEXT, encoding=TEXT)
RESPONSE = record(
    {"status": {"type": "integer"}, "statusText": TEXT, "content": CONTENT, "redirectURL": TEXT, **MESSAGE}
)
TIMINGS = record(
    {"send": SPAN, "wait": SPAN, "receive": SPAN},
    blocked=SPAN_OR_NONE,
    dns=SPAN_OR_NONE,
    connect=SPAN_OR_NONE,
    ssl=SPAN_OR_NONE,
)
ENTRY = record(
    {
        "startedDateTime": TIME,
        "time": SPAN,
        "request": REQUEST,
        "response": RESPONSE,
        "cache": record({}),
        "timings": TIMINGS,
    },
    pageref=TEXT,
    serverIPAddress=WORD,
    connection=WORD,
)
APPLICATION = record({"name": WORD, "version": WORD})
HAR: Schema = record(
    {
        "log": record(
            {"version": {"const": "1.2"}, "creator": APPLICATION, "entries": array(ENTRY)},
            browser=APPLICATION,
            pages=array(record({})),
        )
    }
)
