"""CreateFleet of type `instant`: what is asked for, which pool gets it, and what the answer says of those that had no room."""

import base64
import binascii
import copy
import hashlib
import json
import re

from . import iam
from . import templates
from .estate import SPOT_PRICE
from .instance import Instance
from .instance import new_id
from .tagging import check_tags
from .wire import AwsError

USER_DATA_LIMIT = 16 * 1024
SPOT_STRATEGIES = ("lowest-price", "diversified", "capacity-optimized", "capacity-optimized-prioritized", "price-capacity-optimized")
ON_DEMAND_STRATEGIES = ("lowest-price", "prioritized")
# What CreateFleet itself may tag of an instant fleet; the rest is tagged by the template.
TAGGABLE = ("fleet", "instance", "volume")


class Launch:
    """All that one instance is launched with."""

    def __init__(self, **values):
        self.__dict__.update(values)


class Refused(Exception):
    """Why a pool gave nothing: it goes among the answer's errors."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
        self.message = message


def create(account, caller, request):
    fleet_tags, tags = tags_of(request)
    permit(account, caller, request, fleet_tags)
    token = request.get("ClientToken")
    if token is not None and len(token) > 64:
        raise AwsError("InvalidParameterValue", "ClientToken must be at most 64 characters long")
    digest = hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()
    known = account.estate.tokens.get(("fleet", token)) if token else None
    if known:
        if known["digest"] != digest:
            raise AwsError("IdempotentParameterMismatch", "The client token is already used with different parameters.")
        return known["answer"]
    if request.get("Type", "maintain") != "instant":
        raise AwsError("LabError", "the lab knows fleets of type instant alone", 500)
    spot, total = capacity_of(request)
    pools = pools_of(account, request)
    total += surplus_of(account)
    fleet = f"fleet-{new_id('x')[2:10]}-{new_id('x')[2:6]}"
    instances, errors = [], []
    for _ in range(total):
        for pool in pools:
            try:
                instances.append((pool, launch(account, caller, pool, spot, tags, token, fleet)))
                break
            except Refused as refused:
                error = (pool, refused.code, refused.message)
                if error not in errors:
                    errors.append(error)
    market = "spot" if spot else "on-demand"
    answer = {
        "FleetId": fleet,
        "Errors": [
            {"LaunchTemplateAndOverrides": told(pool), "Lifecycle": market, "ErrorCode": code, "ErrorMessage": message}
            for pool, code, message in errors
        ],
        "Instances": [
            {
                "LaunchTemplateAndOverrides": told(pool),
                "Lifecycle": market,
                "InstanceIds": [instance.id],
                "InstanceType": pool["type"],
                "SubnetId": pool["subnet"],
                "AvailabilityZone": pool["zone"],
            }
            for pool, instance in instances
        ],
    }
    account.estate.fleets[fleet] = {"id": fleet, "tags": fleet_tags, "instances": [instance.id for _, instance in instances]}
    if token:
        account.estate.tokens["fleet", token] = {"digest": digest, "answer": answer}
    return copy.deepcopy(answer)


def surplus_of(account):
    """Returns how many instances come that nobody asked for, as a test says; EC2 has been seen to do that."""
    surplus, account.estate.surplus = account.estate.surplus, 0
    return surplus


def told(pool):
    template = {"LaunchTemplateId": pool["template"].id, "Version": str(pool["version"])}
    overrides = {"InstanceType": pool["type"], "SubnetId": pool["subnet"], "AvailabilityZone": pool["zone"]}
    return {"LaunchTemplateSpecification": template, "Overrides": overrides}


def tags_of(request):
    found = {kind: {} for kind in TAGGABLE}
    for one in request.get("TagSpecifications", []):
        kind = one.get("ResourceType")
        if kind not in TAGGABLE:
            raise AwsError("InvalidParameterValue", f"'{kind}' is not a valid taggable resource type for this operation.")
        found[kind].update({tag["Key"]: tag.get("Value", "") for tag in check_tags(one.get("Tags", []))})
    return found.pop("fleet"), found


def context_of(tags):
    context = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    return {**context, "aws:TagKeys": list(tags)} if tags else context


def permit(account, caller, request, tags):
    resource = f"arn:aws:ec2:{account.region}:{account.id}:fleet/*"
    iam.check(caller, "ec2", "ec2:CreateFleet", resource, context_of(tags))
    if tags:
        iam.check(caller, "ec2", "ec2:CreateTags", resource, {**context_of(tags), "ec2:CreateAction": "CreateFleet"})


def permit_launch(account, caller, pool, spot, tags):
    """Checks what launching from a pool takes, which AWS asks of the caller, not of the fleet."""
    data = pool["data"]
    own = f"arn:aws:ec2:{account.region}:{account.id}"
    template = templates.arn(account, pool["template"])
    context = {
        "ec2:LaunchTemplate": template,
        "ec2:InstanceType": pool["type"],
        "ec2:InstanceMarketType": "spot" if spot else "on-demand",
        "ec2:MetadataHttpTokens": (data.get("MetadataOptions") or {}).get("HttpTokens", "optional"),
    }
    image = templates.resolve(account, caller, pool["image"]) if pool["image"].startswith("resolve:ssm:") else pool["image"]
    resources = {f"arn:aws:ec2:{account.region}::image/{image}": {}, f"{own}:subnet/{pool['subnet']}": {}, template: {}}
    resources.update({f"{own}:security-group/{group}": {} for group in network_of(data)[0]})
    if data.get("KeyName"):
        resources[f"{own}:key-pair/{data['KeyName']}"] = {}
    kinds = ["instance", "volume", "network-interface"] + (["spot-instances-request"] if spot else [])
    merged = launch_tags(data, tags)
    for kind in kinds:
        resources[f"{own}:{kind}/*"] = context_of(merged.get(kind, {}))
    for resource, more in resources.items():
        iam.check(caller, "ec2", "ec2:RunInstances", resource, {**context, **more})
    for kind in kinds:
        if merged.get(kind):
            # A template's tags are RunInstances' and a fleet's are CreateFleet's; policies in use say either.
            action = {**context_of(merged[kind]), "ec2:CreateAction": ["RunInstances", "CreateFleet"]}
            iam.check(caller, "ec2", "ec2:CreateTags", f"{own}:{kind}/*", action)
    profile = profile_of(account, data)
    if profile:
        role = profile.replace(":instance-profile/", ":role/")
        iam.check(caller, "ec2", "iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"})


def capacity_of(request):
    """Returns whether Spot is asked for, and how many instances."""
    target = request.get("TargetCapacitySpecification")
    if not target or "TotalTargetCapacity" not in target:
        raise AwsError("MissingParameter", "The request must contain the parameter TargetCapacitySpecification")
    kind = target.get("DefaultTargetCapacityType", "on-demand")
    total = target["TotalTargetCapacity"]
    spot = target.get("SpotTargetCapacity", total if kind == "spot" else 0) > 0
    strategy = (request.get("SpotOptions") or {}).get("AllocationStrategy")
    if strategy and strategy not in SPOT_STRATEGIES:
        raise AwsError("InvalidParameterValue", f"Value ({strategy}) for parameter AllocationStrategy is invalid.")
    strategy = (request.get("OnDemandOptions") or {}).get("AllocationStrategy")
    if strategy and strategy not in ON_DEMAND_STRATEGIES:
        raise AwsError("InvalidParameterValue", f"Value ({strategy}) for parameter AllocationStrategy is invalid.")
    return spot, total


def pools_of(account, request):
    """Returns the pools in the order in which they are tried."""
    configs = request.get("LaunchTemplateConfigs") or []
    if not configs:
        raise AwsError("MissingParameter", "The request must contain the parameter LaunchTemplateConfigs")
    pools = []
    for config in configs:
        specification = config.get("LaunchTemplateSpecification") or {}
        if not specification.get("Version"):
            raise AwsError("InvalidParameterValue", "Version is required in LaunchTemplateSpecification for fleets")
        template = templates.find(account, specification)
        version = template.version(specification["Version"])
        user_data = specification.get("LaunchTemplateSpecificationUserData") or version["data"].get("UserData")
        check_user_data(user_data)
        for override in config.get("Overrides") or [{}]:
            for one in by_requirements(override):
                pools.append(pool_of(account, template, version, user_data, one))
    if not pools:
        raise AwsError("InvalidFleetConfig", "No instance type meets the instance requirements of the launch template overrides.")
    seen = set()
    for pool in pools:
        name = (pool["type"], pool["zone"])
        if name in seen:
            raise AwsError(
                "InvalidFleetConfig",
                f"The fleet configuration contains duplicate instance pools: {name[0]} in Availability Zone {name[1]}",
            )
        seen.add(name)
    return sorted(pools, key=lambda pool: pool["priority"])


def by_requirements(override):
    """Returns the override once for each type that meets its requirements, and as it is where it has none."""
    wanted = override.get("InstanceRequirements")
    if wanted is None:
        return [override]
    if override.get("InstanceType"):
        raise AwsError("InvalidParameterCombination", "You cannot specify both InstanceType and InstanceRequirements in an override")
    if "VCpuCount" not in wanted or "MemoryMiB" not in wanted:
        raise AwsError("MissingParameter", "InstanceRequirements need VCpuCount and MemoryMiB")
    if "AllowedInstanceTypes" not in wanted:
        raise AwsError("LabError", "the lab knows only the types that are named", 500)

    def meets(kind):
        family, size = kind.split(".")
        if family.startswith("t") and wanted.get("BurstablePerformance", "excluded") == "excluded":
            return False
        count = 2 if size in ("nano", "micro", "small", "medium", "large") else 4 * int(size.removesuffix("xlarge") or 1)
        memory = count * {"c": 2, "r": 8}.get(family[0], 4) * 1024
        return count >= wanted["VCpuCount"].get("Min", 0) and memory >= wanted["MemoryMiB"].get("Min", 0)

    return [{**override, "InstanceType": kind} for kind in wanted["AllowedInstanceTypes"] if meets(kind)]


def pool_of(account, template, version, user_data, override):
    data = version["data"]
    kind = override.get("InstanceType") or data.get("InstanceType")
    if not kind or not re.fullmatch(r"[a-z0-9-]+\.[a-z0-9-]+", kind):
        raise AwsError("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
    subnet = override.get("SubnetId") or network_of(data)[2]
    if subnet not in account.subnets:
        raise AwsError("InvalidSubnetID.NotFound", f"The subnet ID '{subnet}' does not exist")
    image = override.get("ImageId") or data.get("ImageId")
    if not image:
        raise AwsError("InvalidFleetConfig", "The request must contain the parameter ImageId")
    market = (data.get("InstanceMarketOptions") or {}).get("MarketType")
    if market == "spot":
        raise AwsError("InvalidFleetConfig", "InstanceMarketOptions can't be specified in the launch template of a fleet; use the target capacity's type")
    return {
        "template": template,
        "version": version["number"],
        "data": data,
        "user_data": user_data,
        "type": kind,
        "subnet": subnet,
        "zone": account.estate.zone_of(subnet),
        "image": image,
        "max_price": override.get("MaxPrice"),
        "priority": override.get("Priority", 0),
    }


def check_user_data(encoded):
    if not encoded:
        return
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise AwsError("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from None
    if len(raw) > USER_DATA_LIMIT:
        raise AwsError("InvalidParameterValue", "User data is limited to 16384 bytes")


def network_of(data):
    """Returns a template's security groups, its wish for a public address, and its subnet."""
    interfaces = data.get("NetworkInterfaces") or []
    if interfaces:
        return interfaces[0].get("Groups", []), interfaces[0].get("AssociatePublicIpAddress", False), interfaces[0].get("SubnetId")
    return data.get("SecurityGroupIds", []), False, None


def profile_of(account, data):
    profile = data.get("IamInstanceProfile") or {}
    if profile.get("Arn"):
        return profile["Arn"]
    return f"arn:aws:iam::{account.id}:instance-profile/{profile['Name']}" if profile.get("Name") else None


def launch_tags(data, own):
    """Returns all tags by resource: the template's, then the request's."""
    found = {}
    for one in data.get("TagSpecifications", []):
        found.setdefault(one["ResourceType"], {}).update({tag["Key"]: tag.get("Value", "") for tag in one.get("Tags", [])})
    for kind, tags in own.items():
        if tags:
            found.setdefault(kind, {}).update(tags)
    return found


def launch(account, caller, pool, spot, own_tags, token, fleet):
    """Launches one instance in a pool, or says why not."""
    estate, data = account.estate, pool["data"]
    try:
        permit_launch(account, caller, pool, spot, own_tags)
    except AwsError as error:
        # What the caller may not launch is told as any other pool that gives nothing.
        raise Refused(error.code, error.message) from None
    tags = launch_tags(data, own_tags)
    if tags.get("spot-instances-request") and not spot:
        raise Refused("InvalidParameterValue", "'spot-instances-request' tags can't be specified for On-Demand Instances")
    for kind, one in tags.items():
        if len(one) > 50:
            raise Refused("TagLimitExceeded", f"More than 50 tags specified for {kind}")
    image = pool["image"]
    if image.startswith("resolve:ssm:"):
        image = templates.resolve(account, caller, image)
    if image not in estate.images:
        raise Refused("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")
    image = estate.images[image]
    arm = re.match(r"(a1|[a-z]+\d+g[a-z]*)\.", pool["type"]) is not None and not pool["type"].startswith(("g4", "g5.", "g6."))
    if arm != (image["Architecture"] == "arm64"):
        kind = "arm64" if arm else "x86_64"
        raise Refused("InvalidParameterValue", f"The architecture '{kind}' of the specified instance type does not match the architecture '{image['Architecture']}' of the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again.")
    groups, public, _ = network_of(data)
    for group in groups:
        if account.ec2.get_security_group_from_id(group) is None:
            raise Refused("InvalidGroup.NotFound", f"The security group '{group}' does not exist")
    profile = profile_of(account, data)
    if profile and profile not in estate.profiles:
        name = profile.split("/")[-1]
        raise Refused("InvalidParameterValue", f"Value ({name}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name")
    if data.get("KeyName") and data["KeyName"] not in estate.key_pairs:
        raise Refused("InvalidKeyPair.NotFound", f"The key pair '{data['KeyName']}' does not exist")
    if spot and pool["max_price"] and float(pool["max_price"]) < SPOT_PRICE:
        raise Refused("SpotMaxPriceTooLow", f"Your Spot request price of {pool['max_price']} is lower than the minimum required Spot request fulfillment price of {SPOT_PRICE}.")
    shortage = estate.shortage(pool["type"], pool["zone"], spot)
    if shortage:
        raise Refused(shortage["code"], shortage.get("message", ""))
    address = account.address(pool["subnet"]) if estate.free_in(pool["subnet"]) > 0 else None
    if address is None:
        raise Refused("InsufficientFreeAddressesInSubnet", f"There are not enough free addresses in subnet '{pool['subnet']}' to satisfy the requested number of instances.")
    volume = {}
    for one in data.get("BlockDeviceMappings", []):
        if one.get("DeviceName") == image["RootDeviceName"]:
            volume = one.get("Ebs", {})
    instance = Instance(
        account,
        Launch(
            template=pool["template"].id,
            type=pool["type"],
            subnet=pool["subnet"],
            zone=pool["zone"],
            spot=spot,
            image=image,
            user_data=pool["user_data"],
            volume=volume,
            groups=groups,
            public=public,
            profile=profile,
            key_name=data.get("KeyName"),
            shutdown_behavior=data.get("InstanceInitiatedShutdownBehavior", "stop"),
            metadata_options=data.get("MetadataOptions") or {},
            tags=tags,
            token=token,
            fleet=fleet,
            address=address,
        ),
        estate.fate(pool["type"], spot),
        caller.arn,
    )
    instance.tags.setdefault("aws:ec2:fleet-id", fleet)
    instance.tags.setdefault("aws:ec2launchtemplate:id", pool["template"].id)
    instance.tags.setdefault("aws:ec2launchtemplate:version", str(pool["version"]))
    estate.instances[instance.id] = instance
    return instance


CALLS = {"CreateFleet": create}
