"""ECS's calls about tasks, with what AWS checks of them. All other calls of ECS are moto's."""

import hashlib
import json
import re
import time

from moto.ecs.exceptions import ClusterNotFoundException
from moto.ecs.exceptions import TaskDefinitionNotFoundException

from . import iam
from .task import Task
from .wire import AwsError

FARGATE = ("FARGATE", "FARGATE_SPOT")
PLATFORM_VERSIONS = ("LATEST", "1.3.0", "1.4.0")


def bad(message):
    return AwsError("InvalidParameterException", message)


def cluster_of(account, request):
    name = request.get("cluster") or "default"
    try:
        if name.startswith("arn:") and not name.startswith(f"arn:aws:ecs:{account.region}:{account.id}:"):
            raise ClusterNotFoundException
        return account.ecs._get_cluster(name)
    except ClusterNotFoundException:
        raise AwsError("ClusterNotFoundException", "Cluster not found.") from None


def cluster_arn(account, request):
    name = (request.get("cluster") or "default").split("/")[-1]
    return f"arn:aws:ecs:{account.region}:{account.id}:cluster/{name}"


# RunTask


def run_task(account, caller, request):
    family = str(request.get("taskDefinition", "")).split("/")[-1]
    definition = None
    try:
        definition = account.ecs.describe_task_definition(request.get("taskDefinition", ""))
        family = f"{definition.family}:{definition.revision}"
    except (TaskDefinitionNotFoundException, ValueError):
        pass
    context = {"ecs:cluster": cluster_arn(account, request)}
    for tag in request.get("tags", []):
        context[f"aws:RequestTag/{tag.get('key', '')}"] = tag.get("value", "")
    if request.get("tags"):
        context["aws:TagKeys"] = [tag.get("key", "") for tag in request["tags"]]
    resource = f"arn:aws:ecs:{account.region}:{account.id}:task-definition/{family}"
    iam.check(caller, "ecs", "ecs:RunTask", resource, context)
    if request.get("tags") or request.get("propagateTags") in ("TASK_DEFINITION", "SERVICE"):
        cluster = cluster_arn(account, request).rsplit("/", 1)[-1]
        task = f"arn:aws:ecs:{account.region}:{account.id}:task/{cluster}/*"
        iam.check(caller, "ecs", "ecs:TagResource", task, {**context, "ecs:CreateAction": "RunTask"})
    for role in ("task_role_arn", "execution_role_arn"):
        arn = getattr(definition, role, None)
        if arn:
            iam.check(caller, "ecs", "iam:PassRole", arn, {"iam:PassedToService": "ecs-tasks.amazonaws.com"})

    cluster = cluster_of(account, request)
    if definition is None:
        raise bad("TaskDefinition not found.")
    if definition.status != "ACTIVE":
        raise AwsError("ClientException", "TaskDefinition is inactive")
    check_texts(request)
    token = request.get("clientToken")
    parameters = json.dumps({k: v for k, v in request.items() if k != "clientToken"}, sort_keys=True)
    digest = hashlib.sha256(parameters.encode()).hexdigest()
    known = account.tokens.get((cluster.name, token)) if token else None
    if known is not None:
        if known["digest"] != digest:
            raise AwsError(
                "ConflictException",
                "The RunTask request could not be processed due to conflicts. The provided clientToken is already in use "
                f"with a different RunTask request. The resourceIds are the existing task ARNs: {known['tasks']}",
                resourceIds=known["tasks"],
            )
        return known["answer"]
    capacity = capacity_of(account, cluster, request)
    check_network(account, definition, request, capacity)
    check_overrides(definition, request)

    count = request.get("count", 1)
    if not isinstance(count, int) or not 1 <= count <= 10:
        raise bad("count must be between 1 and 10")
    tasks = []
    for _ in range(count):
        fate = next_fate(account, definition, capacity, request)
        task = Task(account, cluster, definition, request, capacity, fate, caller.arn)
        account.tasks[task.arn] = task
        tasks.append(task)
    answer = {"tasks": [task.describe(tags=True) for task in tasks], "failures": []}
    if token:
        account.tokens[cluster.name, token] = {
            "digest": digest,
            "tasks": [task.arn for task in tasks],
            "answer": answer,
        }
    return answer


def next_fate(account, definition, capacity, request):
    for fate in account.fates:
        wanted = fate.get("match", {})
        have = {
            "family": definition.family,
            "provider": capacity[0],
            "started_by": request.get("startedBy"),
            "subnet": json.dumps(request.get("networkConfiguration", {})),
        }
        if all(text in (have.get(key) or "") for key, text in wanted.items()):
            if fate.get("times") is not None:
                fate["times"] -= 1
                if fate["times"] <= 0:
                    account.fates.remove(fate)
            return fate if fate["kind"] != "none" else None
    return None


def capacity_of(account, cluster, request):
    """Returns the capacity provider and the launch type."""
    launch_type = request.get("launchType")
    strategy = request.get("capacityProviderStrategy")
    if launch_type and strategy:
        raise bad("Specify either a launch type or a capacity provider strategy, but not both.")
    if launch_type:
        if launch_type not in ("EC2", "FARGATE", "EXTERNAL", "MANAGED_INSTANCES"):
            raise bad(f"Launch type {launch_type} is not supported.")
        if launch_type != "FARGATE":
            raise bad("No Container Instances were found in your cluster.")
        return None, "FARGATE"
    strategy = strategy or cluster.default_capacity_provider_strategy
    if not strategy:
        raise bad("No Container Instances were found in your cluster.")
    for item in strategy:
        name = item["capacityProvider"]
        if name not in account.providers:
            raise bad(f"The specified capacity provider '{name}' was not found. Specify a valid name or ARN and try again.")
        if name not in (cluster.capacity_providers or []):
            raise bad(
                "The specified capacity provider strategy cannot contain a capacity provider that is not associated with "
                "the cluster. Associate the capacity provider with the cluster and try again."
            )
    names = [item["capacityProvider"] for item in strategy]
    if len({name in FARGATE for name in names}) > 1:
        raise bad("The specified capacity provider strategy cannot contain both Fargate and other capacity providers.")
    # As with `base`: the first gets the task; weights are not played.
    return names[0], "FARGATE" if names[0] in FARGATE else "MANAGED_INSTANCES"


def check_network(account, definition, request, capacity):
    fargate = capacity[1] == "FARGATE"
    version = request.get("platformVersion")
    if version and not fargate:
        raise bad("The platform version must be null when specifying an EC2 launch type.")
    if version and version not in PLATFORM_VERSIONS:
        raise AwsError("PlatformUnknownException", "The specified platform version does not exist.")
    if fargate and "FARGATE" not in (definition.compatibilities or []):
        raise bad("Task definition does not support launch_type FARGATE.")
    if not fargate and definition.requires_compatibilities == ["FARGATE"]:
        raise bad("Task definition does not support launch_type MANAGED_INSTANCES.")
    if fargate and definition.network_mode != "awsvpc":
        raise bad("Fargate only supports network mode 'awsvpc'.")
    if request.get("enableExecuteCommand") and not getattr(definition, "task_role_arn", None):
        raise bad(
            "The task couldn't be run because a valid taskRoleArn is not being used. Specify a valid task role in your "
            "task definition and try again."
        )
    awsvpc = request.get("networkConfiguration", {}).get("awsvpcConfiguration")
    if definition.network_mode != "awsvpc":
        if awsvpc:
            raise bad("Network Configuration is not valid for the given networkMode of this task definition.")
        return
    if not awsvpc:
        raise bad("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
    subnets, groups = awsvpc.get("subnets") or [], awsvpc.get("securityGroups") or []
    if not subnets:
        raise bad("subnets can not be empty.")
    if len(subnets) > 16:
        raise bad("subnets can have at most 16 items.")
    if len(groups) > 5:
        raise bad("securityGroups can have at most 5 items.")
    if not fargate and awsvpc.get("assignPublicIp") == "ENABLED":
        raise bad("Assign public IP is not supported for this launch type.")
    for subnet in subnets:
        if subnet not in account.subnets:
            raise bad(
                f"Error retrieving subnet information for [{subnet}]: The subnet ID '{subnet}' does not exist "
                "(ErrorCode: InvalidSubnetID.NotFound)"
            )
    for group in groups:
        if account.ec2.get_security_group_from_id(group) is None:
            raise bad(
                f"Error retrieving security group information for [{group}]: The security group '{group}' does not exist "
                "(ErrorCode: InvalidGroup.NotFound)"
            )


def check_texts(request):
    started_by = request.get("startedBy")
    if started_by is not None and (len(started_by) > 36 or not re.fullmatch(r"[A-Za-z0-9/_-]+", started_by)):
        raise bad("startedBy must be at most 36 letters, numbers, hyphens, forward slashes and underscores.")
    token = request.get("clientToken")
    if token is not None and (len(token) > 64 or not re.fullmatch(r"[\x21-\x7e]+", token)):
        raise bad("clientToken must be at most 64 characters in the range of 33-126.")
    check_tags(request.get("tags", []))
    if request.get("propagateTags") not in (None, "NONE", "TASK_DEFINITION", "SERVICE"):
        raise bad("Invalid value for propagateTags.")


def check_tags(tags):
    if len(tags) > 50:
        raise bad("Tags can not have more than 50 elements.")
    keys = [tag.get("key", "") for tag in tags]
    if len(set(keys)) != len(keys):
        raise bad("Duplicate tag keys found.")
    for tag in tags:
        key, value = tag.get("key", ""), tag.get("value", "")
        if not 1 <= len(key) <= 128 or not legal(key):
            raise bad(f"Tag key is not valid: {key!r}.")
        if len(value) > 256 or not legal(value):
            raise bad(f"Tag value of {key!r} is not valid: {value!r}.")
        if key.lower().startswith("aws:") or value.lower().startswith("aws:"):
            raise bad("Tags can not start with aws:, which is reserved for AWS use.")


def legal(text):
    return all(c.isalpha() or c.isnumeric() or c in " _.:/=+-@" for c in text)


def check_overrides(definition, request):
    overrides = request.get("overrides", {})
    names = {container["name"] for container in definition.container_definitions}
    for override in overrides.get("containerOverrides", []):
        if override.get("name") not in names:
            raise bad(f"Override for container named {override.get('name')} is not a container in the TaskDefinition.")
    if len(json.dumps(overrides, separators=(",", ":"), ensure_ascii=False)) > 8192:
        raise bad("Container Overrides length must be at most 8192")


# The other three


def find(account, cluster, name):
    """Returns the task of that ARN or id in the cluster, if there is one."""
    identifier = name.split("/")[-1]
    if len(identifier) not in (32, 36):
        raise bad("taskId length should be one of [32,36]")
    if name.startswith("arn:"):
        parts = name.split("/")
        if len(parts) == 3 and parts[1] != cluster.name:
            raise bad(f"Invalid identifier: Identifier is for cluster {parts[1]}. Your cluster is {cluster.name}")
    for task in account.tasks.values():
        if task.id == identifier and task.cluster.name == cluster.name:
            return task
    return None


def task_arn(account, request, name):
    if name.startswith("arn:"):
        return name
    return cluster_arn(account, request).replace(":cluster/", ":task/") + f"/{name}"


def stop_task(account, caller, request):
    name = request.get("task", "")
    resource = task_arn(account, request, name)
    iam.check(caller, "ecs", "ecs:StopTask", resource, {"ecs:cluster": cluster_arn(account, request)})
    cluster = cluster_of(account, request)
    reason = request.get("reason")
    if reason is not None and len(reason) > 255:
        raise bad("reason can have at most 255 characters.")
    task = find(account, cluster, name)
    if task is None or time.time() < task.stoppable_from:
        raise bad("The referenced task was not found.")
    task.stop("UserInitiated", reason or "Task stopped by user")
    return {"task": task.describe()}


def describe_tasks(account, caller, request):
    names = request.get("tasks") or []
    for name in names:
        resource = task_arn(account, request, name)
        iam.check(caller, "ecs", "ecs:DescribeTasks", resource, {"ecs:cluster": cluster_arn(account, request)})
    cluster = cluster_of(account, request)
    if not names:
        raise bad("Tasks can not be empty.")
    if len(names) > 100:
        raise bad("Tasks can have at most 100 items.")
    tasks, failures = [], []
    for name in names:
        task = find(account, cluster, name)
        if task is None or time.time() < task.missing_until:
            failures.append({"arn": task_arn(account, request, name), "reason": "MISSING"})
        else:
            tasks.append(task.describe(tags="TAGS" in request.get("include", [])))
    return {"tasks": tasks, "failures": failures}


def list_tasks(account, caller, request):
    # ListTasks is allowed on container instances, which Fargate has none of: in practice "*" with a condition.
    iam.check(caller, "ecs", "ecs:ListTasks", "*", {"ecs:cluster": cluster_arn(account, request)})
    cluster = cluster_of(account, request)
    filters = {"family", "startedBy", "desiredStatus", "launchType", "serviceName", "containerInstance"} & set(request)
    if "startedBy" in filters and len(filters) > 1:
        raise bad("startedBy must be the only filter.")
    desired = request.get("desiredStatus", "RUNNING")
    if desired not in ("RUNNING", "STOPPED", "PENDING"):
        raise bad("Invalid desiredStatus.")
    size = request.get("maxResults", 100)
    if not 1 <= size <= 100:
        raise bad("maxResults must be between 1 and 100.")
    found = [
        task.arn
        for task in account.tasks.values()
        if task.cluster.name == cluster.name
        and task.desired == desired
        and time.time() >= task.listed_from
        and request.get("startedBy") in (None, task.request.get("startedBy"))
        and request.get("family") in (None, task.definition.family)
        and request.get("launchType") in (None, task.launch_type)
    ]
    begin = int(request.get("nextToken", 0))
    answer = {"taskArns": found[begin : begin + size]}
    if begin + size < len(found):
        answer["nextToken"] = str(begin + size)
    return answer


def tag_resource(account, caller, request):
    """Tags a task; None for what is no task, which is moto's."""
    arn = request.get("resourceArn", "")
    task = account.tasks.get(arn)
    if task is None:
        return None
    iam.check(caller, "ecs", "ecs:TagResource", arn)
    keys = {tag["key"] for tag in request.get("tags", [])}
    tags = [tag for tag in task.request.get("tags", []) if tag["key"] not in keys] + request["tags"]
    check_tags(tags)
    task.request = {**task.request, "tags": tags}
    return {}


CALLS = {
    "RunTask": run_task,
    "StopTask": stop_task,
    "DescribeTasks": describe_tasks,
    "ListTasks": list_tasks,
    "TagResource": tag_resource,
}
