from __future__ import annotations

import pytest

from prunec.serve.headers import announced
from prunec.serve.limits import Limits
from prunec.serve.refusal import Refused

LIMITS = Limits(json_bytes=100, body_bytes=1000, held_bytes=5000)


def headers(**values: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in values.items()]


def test_a_body_without_tensors_has_the_limit_of_json() -> None:
    assert announced(headers(content_length="100"), LIMITS).most == 100
    assert announced(headers(transfer_encoding="chunked"), LIMITS).json_bytes is None


def test_a_body_with_tensors_has_its_own() -> None:
    found = announced(headers(content_length="1000", inference_header_content_length="100"), LIMITS)
    assert (found.json_bytes, found.most) == (100, 1000)


@pytest.mark.parametrize(
    ("values", "status", "said"),
    [
        ({"content_length": "101"}, 413, "JSON is larger than 100 bytes; send tensors as binary data"),
        ({"content_length": "1001", "inference_header_content_length": "9"}, 413, "body is larger than 1,000 bytes"),
        ({"content_length": "500", "inference_header_content_length": "101"}, 413, "JSON is larger"),
        ({"content_length": "50", "inference_header_content_length": "51"}, 400, "is 51, and the whole body is 50"),
        ({"inference_header_content_length": "-1"}, 400, "is '-1'; give a number of bytes"),
        ({"inference_header_content_length": "1.0"}, 400, "is '1.0'"),
        ({"inference_header_content_length": ""}, 400, "is ''"),
        ({"inference_header_content_length": "٣"}, 400, "give a number"),
        ({"inference_header_content_length": "9" * 1000}, 400, "give a number"),
        ({"content_encoding": "gzip"}, 415, "the body is encoded as 'gzip'; send it as it is"),
    ],
)
def test_headers_that_cannot_be_are_refused(values: dict[str, str], status: int, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        announced(headers(**values), LIMITS)
    assert refused.value.status == status


@pytest.mark.parametrize("name", ["content-length", "inference-header-content-length", "content-encoding"])
def test_a_header_that_stands_twice_is_refused(name: str) -> None:
    twice = [(name.encode(), b"1"), (name.title().encode(), b"1")]
    with pytest.raises(Refused, match="stands twice"):
        announced(twice, LIMITS)


def test_an_encoding_that_changes_nothing_is_taken() -> None:
    assert announced(headers(content_encoding="identity"), LIMITS).most == 100
