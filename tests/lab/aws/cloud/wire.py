"""What goes over the wire: an error in each service's own form, and a JSON answer."""

import json
import uuid
from xml.sax.saxutils import escape

JSON = "application/x-amz-json-1.1"


class AwsError(Exception):
    """A refusal in AWS's words."""

    def __init__(self, code, message, status=400, **extra):
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.extra = extra


class Answer:
    """Status, content type and body of an answer, before it is sent."""

    def __init__(self, status, content_type, body, headers=()):
        self.status = status
        self.content_type = content_type
        self.body = body if isinstance(body, bytes) else body.encode()
        self.headers = list(headers)


def json_answer(value, status=200, content_type=JSON):
    return Answer(status, content_type, json.dumps(value), [("x-amzn-RequestId", str(uuid.uuid4()))])


def error_answer(service, error):
    """Returns the error as that service writes it."""
    request = str(uuid.uuid4())
    code, message = escape(error.code), escape(error.message)
    if service == "ec2":
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
            f"<RequestID>{request}</RequestID></Response>"
        )
        return Answer(error.status, "text/xml;charset=UTF-8", body)
    if service in ("sts", "iam"):
        body = (
            f'<ErrorResponse xmlns="https://{service}.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
            f"<Code>{code}</Code><Message>{message}</Message></Error><RequestId>{request}</RequestId></ErrorResponse>"
        )
        return Answer(error.status, "text/xml", body)
    return json_answer({"__type": error.code, "message": error.message, **error.extra}, error.status)
