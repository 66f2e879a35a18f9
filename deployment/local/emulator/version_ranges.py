"""Returns only the requested range of an object version, as S3 does. For object versions, MiniStack ignores the Range
header and returns the whole object.

docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
"""

from typing import Any

from ministack.services import s3


def install() -> None:
    get_object = s3._get_object

    def get(bucket: str, key: str, headers: dict[str, str], query_params: dict[str, Any] | None = None) -> Any:
        wanted = headers.get("range", "")
        if not wanted or not (query_params or {}).get("versionId"):
            return get_object(bucket, key, headers, query_params)
        # The checksum is omitted, because it is that of the whole object.
        without_checksum = {name: value for name, value in headers.items() if name != "x-amz-checksum-mode"}
        status, answer, body = get_object(bucket, key, without_checksum, query_params)
        return (status, answer, body) if status != 200 else _part(wanted, bucket, key, answer, body)

    s3._get_object = get


def _part(wanted: str, bucket: str, key: str, headers: dict[str, str], body: bytes) -> Any:
    found = s3._parse_range(wanted, len(body))
    if found is None:
        error = s3._xml_body(s3._range_error_xml(bucket, key))
        return 416, {"Content-Type": "application/xml", "Content-Range": f"bytes */{len(body)}"}, error
    start, end = found
    content_range = f"bytes {start}-{end}/{len(body)}"
    return (
        206,
        headers | {"Content-Length": str(end - start + 1), "Content-Range": content_range},
        body[start : end + 1],
    )
