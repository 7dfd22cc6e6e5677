"""EC2's tags, filters and pages."""

import fnmatch

from .wire import AwsError


def pairs(tags):
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def check_tags(tags):
    """Returns the tags, or refuses them as EC2 does."""
    if len(tags) > 50:
        raise AwsError("TagLimitExceeded", "You have reached the maximum number of tags on the resource.")
    keys = [tag.get("Key", "") for tag in tags]
    if len(set(keys)) != len(keys):
        raise AwsError("InvalidParameterValue", "Duplicate tag key specified.")
    for tag in tags:
        key, value = tag.get("Key", ""), tag.get("Value", "")
        if not key or len(key.encode("utf-16-le")) > 256:
            raise AwsError("InvalidParameterValue", f"Tag key exceeds the maximum length of 128 characters or is empty: '{key}'")
        if len(value.encode("utf-16-le")) > 512:
            raise AwsError("InvalidParameterValue", f"Tag value exceeds the maximum length of 256 characters: '{value}'")
        if key.lower().startswith("aws:"):
            raise AwsError("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
    return tags


def wanted_by(filters, one, fields, tags):
    """Tells whether something passes all filters: the fields' values by name, and the tags."""
    for item in filters:
        name, patterns = item.get("Name", ""), item.get("Values", [])
        if name == "tag-key":
            have = list(tags)
        elif name.startswith("tag:"):
            have = [tags[name[4:]]] if name[4:] in tags else []
        elif name in fields:
            have = [value for value in fields[name](one) if value is not None]
        else:
            raise AwsError("InvalidParameterValue", f"The filter '{name}' is invalid")
        if not any(fnmatch.fnmatchcase(value, pattern.replace("[", "[[]")) for value in have for pattern in patterns):
            return False
    return True


def page(request, name, found, most):
    """Returns the page of a listing that is asked for."""
    size = request.get("MaxResults")
    if size is None:
        return {name: found}
    if not 1 <= size <= most:
        raise AwsError("InvalidParameterValue", f"Value ( {size} ) for parameter maxResults is invalid.")
    begin = int(request.get("NextToken") or 0)
    answer = {name: found[begin : begin + size]}
    if begin + size < len(found):
        answer["NextToken"] = str(begin + size)
    return answer
