"""An answer of the service: flask's response, without the work on its headers that none of ours needs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from flask import Response
from werkzeug.datastructures import Headers

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_WITHOUT_BODY = {204, 304}


class Answer(Response):
    """Its headers go out as they are: made of bytes, an answer knows its length, and our Locations are ASCII."""

    @classmethod
    def of(cls, body: bytes, status: int, headers: Mapping[str, str]) -> Self:
        """An answer with headers of ours. werkzeug's own way asks of each name and value whether it may be one."""
        ours = Headers()
        ours._list = [*headers.items(), ("Content-Length", str(len(body)))]
        return cls([body], status, ours)

    def get_wsgi_headers(self, environ: "WSGIEnvironment") -> Headers:
        # werkzeug's own copies all headers and takes each Location apart, at a tenth of what a single read costs.
        return super().get_wsgi_headers(environ) if self.status_code in _WITHOUT_BODY else self.headers
