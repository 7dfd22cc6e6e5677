"""EC2's launch templates."""

import re
import time

from . import iam
from .instance import new_id
from .instance import utc
from .tagging import check_tags
from .tagging import page
from .tagging import pairs
from .tagging import wanted_by
from .wire import AwsError

# What a template may tag of what it launches.
LAUNCHED = ("instance", "volume", "network-interface", "spot-instances-request")


class Template:
    def __init__(self, name, data, description, tags, caller):
        self.id = new_id("lt")
        self.name = name
        self.tags = tags
        self.created = time.time()
        self.caller = caller
        self.default = 1
        self.versions = []
        self.add(data, description)

    def add(self, data, description):
        version = {"number": len(self.versions) + 1, "data": data, "description": description, "created": time.time()}
        self.versions.append(version)
        return version

    def version(self, name):
        number = {"$Default": self.default, "$Latest": len(self.versions)}.get(name)
        number = number or (int(name) if str(name).isdigit() else 0)
        if not 1 <= number <= len(self.versions):
            raise AwsError(
                "InvalidLaunchTemplateId.VersionNotFound",
                f"Could not find the specified version {name} for the launch template with ID {self.id}.",
            )
        return self.versions[number - 1]

    def describe(self):
        return {
            "LaunchTemplateId": self.id,
            "LaunchTemplateName": self.name,
            "CreateTime": utc(self.created),
            "CreatedBy": self.caller,
            "DefaultVersionNumber": self.default,
            "LatestVersionNumber": len(self.versions),
            "Tags": pairs(self.tags),
        }

    def describe_version(self, version):
        return {
            "LaunchTemplateId": self.id,
            "LaunchTemplateName": self.name,
            "VersionNumber": version["number"],
            "VersionDescription": version["description"],
            "CreateTime": utc(version["created"]),
            "CreatedBy": self.caller,
            "DefaultVersion": version["number"] == self.default,
            "LaunchTemplateData": version["data"],
        }

    def inside(self):
        return {"id": self.id, "name": self.name, "tags": self.tags, "data": self.versions[-1]["data"], "created": self.created}


def arn(account, template):
    return f"arn:aws:ec2:{account.region}:{account.id}:launch-template/{template.id if template else '*'}"


def find(account, request):
    """Returns the template that a request names."""
    identifier, name = request.get("LaunchTemplateId"), request.get("LaunchTemplateName")
    if bool(identifier) == bool(name):
        raise AwsError("MissingParameter", "Either a launch template ID or a launch template name must be specified, not both.")
    templates = account.estate.templates
    if identifier:
        if identifier not in templates:
            raise AwsError("InvalidLaunchTemplateId.NotFound", f"The specified launch template, with template ID {identifier}, does not exist.")
        return templates[identifier]
    for template in templates.values():
        if template.name == name:
            return template
    raise AwsError("InvalidLaunchTemplateName.NotFoundException", f"The specified launch template, with template name {name}, does not exist.")


def check_data(data):
    for one in data.get("TagSpecifications", []):
        if one.get("ResourceType") not in LAUNCHED:
            raise AwsError("InvalidParameterValue", f"'{one.get('ResourceType')}' is not a valid taggable resource type for this operation.")
        check_tags(one.get("Tags", []))
    if data.get("SecurityGroupIds") and data.get("NetworkInterfaces"):
        raise AwsError("InvalidParameterCombination", "Network interfaces and an instance-level security groups may not be specified on the same request")
    return data


def create(account, caller, request):
    specifications = request.get("TagSpecifications", [])
    tags = {}
    for one in specifications:
        if one.get("ResourceType") != "launch-template":
            raise AwsError("InvalidParameterValue", "The value for the ResourceType member of the TagSpecification request parameter must be 'launch-template'. Verify the ResourceType and try again.")
        tags.update({tag["Key"]: tag.get("Value", "") for tag in check_tags(one.get("Tags", []))})
    context = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    if tags:
        context["aws:TagKeys"] = list(tags)
    iam.check(caller, "ec2", "ec2:CreateLaunchTemplate", arn(account, None), context)
    if tags:
        iam.check(caller, "ec2", "ec2:CreateTags", arn(account, None), {**context, "ec2:CreateAction": "CreateLaunchTemplate"})
    name = request.get("LaunchTemplateName", "")
    if not 3 <= len(name) <= 128 or not re.fullmatch(r"[a-zA-Z0-9().\-/_]+", name):
        raise AwsError("InvalidLaunchTemplateName.MalformedException", "Launch template names must be between 3 and 128 characters, and may contain letters, numbers, and the following characters: - ( ) . / _.")
    token = request.get("ClientToken")
    known = account.estate.tokens.get(("template", token)) if token else None
    if known:
        return known
    if any(template.name == name for template in account.estate.templates.values()):
        raise AwsError("InvalidLaunchTemplateName.AlreadyExistsException", f"Launch template name already in use.")
    data = check_data(request.get("LaunchTemplateData", {}))
    template = Template(name, data, request.get("VersionDescription"), tags, caller.arn)
    account.estate.templates[template.id] = template
    answer = {"LaunchTemplate": template.describe()}
    if token:
        account.estate.tokens["template", token] = answer
    return answer


def create_version(account, caller, request):
    template = find(account, request)
    iam.check(caller, "ec2", "ec2:CreateLaunchTemplateVersion", arn(account, template), resource_tags(template))
    data = check_data(request.get("LaunchTemplateData", {}))
    if request.get("SourceVersion"):
        data = {**template.version(request["SourceVersion"])["data"], **data}
    version = template.add(data, request.get("VersionDescription"))
    return {"LaunchTemplateVersion": template.describe_version(version)}


def resource_tags(template):
    return {f"aws:ResourceTag/{key}": value for key, value in template.tags.items()}


def describe(account, caller, request):
    iam.check(caller, "ec2", "ec2:DescribeLaunchTemplates", "*")
    found = list(account.estate.templates.values())
    for identifier in request.get("LaunchTemplateIds", []):
        find(account, {"LaunchTemplateId": identifier})
    for name in request.get("LaunchTemplateNames", []):
        find(account, {"LaunchTemplateName": name})
    named = set(request.get("LaunchTemplateIds", [])) | set(request.get("LaunchTemplateNames", []))
    if named:
        found = [one for one in found if {one.id, one.name} & named]
    fields = {"launch-template-name": lambda one: [one.name], "create-time": lambda one: [str(one.created)]}
    found = [one for one in found if wanted_by(request.get("Filters", []), one, fields, one.tags)]
    return page(request, "LaunchTemplates", [one.describe() for one in found], 200)


def describe_versions(account, caller, request):
    iam.check(caller, "ec2", "ec2:DescribeLaunchTemplateVersions", "*")
    template = find(account, request)
    names = request.get("Versions", [])
    versions = [template.version(name) for name in names] if names else list(reversed(template.versions))
    described = [template.describe_version(version) for version in versions]
    if request.get("ResolveAlias"):
        for one in described:
            image = one["LaunchTemplateData"].get("ImageId", "")
            if image.startswith("resolve:ssm:"):
                resolved = resolve(account, caller, image)
                one["LaunchTemplateData"] = {**one["LaunchTemplateData"], "ImageId": resolved}
    return page(request, "LaunchTemplateVersions", described, 200)


def delete(account, caller, request):
    try:
        template = find(account, request)
    except AwsError:
        iam.check(caller, "ec2", "ec2:DeleteLaunchTemplate", arn(account, None))
        raise
    iam.check(caller, "ec2", "ec2:DeleteLaunchTemplate", arn(account, template), resource_tags(template))
    del account.estate.templates[template.id]
    return {"LaunchTemplate": template.describe()}


def resolve(account, caller, image):
    """Returns the image's id that an SSM parameter holds."""
    name = image.removeprefix("resolve:ssm:").split(":")[0]
    owner = "" if name.startswith("/aws/") else account.id
    iam.check(caller, "ec2", "ssm:GetParameters", f"arn:aws:ssm:{account.region}:{owner}:parameter/{name.lstrip('/')}")
    if name not in account.estate.parameters:
        raise AwsError("SsmInvalidParameter", f"The following aliases are invalid: {name}")
    return account.estate.parameters[name]


CALLS = {
    "CreateLaunchTemplate": create,
    "CreateLaunchTemplateVersion": create_version,
    "DescribeLaunchTemplates": describe,
    "DescribeLaunchTemplateVersions": describe_versions,
    "DeleteLaunchTemplate": delete,
}
