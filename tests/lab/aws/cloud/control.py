"""The control API, for tests: JSON over HTTP below /lab.

POST   /lab/accounts                     {region?}                       a new account
DELETE /lab/accounts/ID                                                  ends all in it
GET    /lab/accounts/ID?after=V&timeout=S                                its state, once its version is past V
PATCH  /lab/accounts/ID                  {timings, policy, list_lag, missing, stop_lag, addresses, machine_at,
                                          stop_timeout, clock, limits: "documented"}
GET    /lab/accounts/ID/calls?from=N                                     the call log
POST   /lab/accounts/ID/clusters         {name, providers, default}      a cluster (again: changed)
POST   /lab/accounts/ID/providers        {name}                          a capacity provider
POST   /lab/accounts/ID/definitions      RegisterTaskDefinition's input, camelCase
POST   /lab/accounts/ID/machines         {family, command, environment?, directory?, log?}
POST   /lab/accounts/ID/roles            {name, policy?, external_id?, trust_tags?}
POST   /lab/accounts/ID/faults           {action, kind, times?, skip?, match?, …}; DELETE: none any more
POST   /lab/accounts/ID/fates            {kind, at?, after?, times?, match?, …}; DELETE: none any more
POST   /lab/accounts/ID/meet             {task, kind, …}                 a fate for a task that is there, now

Of EC2, where a machine's family is "instances" (all) or "job N" (those with that job's tag; and its tasks, if their own
family has none):

POST   /lab/accounts/ID/shortages        {code, message?, type?, zone?, market?, times?, room?}; DELETE: none any more
POST   /lab/accounts/ID/instance_fates   {kind, at?, after?, times?, match?, …}; DELETE: none any more
POST   /lab/accounts/ID/instance_meet    {instance, kind, …}             a fate for an instance that is there, now
POST   /lab/accounts/ID/subnets          {zone}                          another subnet
POST   /lab/accounts/ID/free_addresses   {subnet, count}
POST   /lab/accounts/ID/images           DescribeImages' output
POST   /lab/accounts/ID/parameters       {name, image}                   an SSM parameter
POST   /lab/accounts/ID/profiles         {name}                          an instance profile, and its role of that name
POST   /lab/accounts/ID/key_pairs        {name}
POST   /lab/accounts/ID/age              {seconds}                       volumes, Spot requests and templates become older
POST   /lab/accounts/ID/surplus          {count}                         the next fleet has so many instances too many
POST   /lab/accounts/ID/expire_keys      {}                              keys that EC2 Instance Connect sent are old
POST   /lab/accounts/ID/stale_keys       {count}                         the next keys that it is to send come too late
POST   /lab/accounts/ID/leave            {kind}                          the next volume or spot-request stays
POST   /lab/accounts/ID/tags             {id, tags}                      all tags of an instance, volume or Spot request, as they now are
"""

import json
import time
import traceback
import urllib.parse

from . import clock
from . import world
from .faults import Fault
from .iam import Policy
from .wire import json_answer

INSTANCE_FATES = {"none", "stuck", "fail", "deaf", "impostor", "dies", "spot", "someone", "off"}
FATES = {"none", "stuck", "stop", "exit", "oom", "spot", "someone"}


def handle(environ, body):
    method = environ["REQUEST_METHOD"]
    parts = environ["PATH_INFO"].strip("/").split("/")[1:]
    query = dict(urllib.parse.parse_qsl(environ.get("QUERY_STRING", "")))
    try:
        value = json.loads(body or b"null")
        with clock.LOCK:
            return json_answer(route(method, parts, query, value), content_type="application/json")
    except Exception as error:
        traceback.print_exc()
        return json_answer({"error": repr(error)}, 400, "application/json")


def route(method, parts, query, value):
    if not parts:
        return {"accounts": list(world.ACCOUNTS)}
    if parts[0] != "accounts":
        raise KeyError(parts[0])
    if len(parts) == 1:
        return world.Account(**(value or {})).info()
    account = world.ACCOUNTS[parts[1]]
    if len(parts) == 2:
        if method == "DELETE":
            account.end()
            return {}
        if method == "PATCH":
            return configure(account, value)
        return wait(account, query)
    what = parts[2]
    if what == "calls":
        return account.calls[int(query.get("from", 0)) :]
    if method == "DELETE" and what == "faults":
        account.faults.rules.clear()
    elif method == "DELETE" and what == "fates":
        account.fates.clear()
    elif method == "DELETE" and what == "shortages":
        account.estate.shortages.clear()
    elif method == "DELETE" and what == "instance_fates":
        account.estate.fates.clear()
    else:
        return ADD[what](account, value) or {}
    return {}


def wait(account, query):
    deadline = time.monotonic() + float(query.get("timeout", 0))
    while account.version <= int(query.get("after", -1)):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        clock.CHANGED.wait(left)
    return account.state()


def configure(account, value):
    for name, one in value.items():
        if name == "timings":
            unknown = set(one) - set(account.timings)
            if unknown:
                raise KeyError(unknown)
            account.timings.update(one)
        elif name == "policy":
            account.policy = Policy(one) if one is not None else None
        elif name == "limits":
            account.limits.documented()
        elif name in ("list_lag", "missing", "stop_lag", "addresses", "machine_at", "stop_timeout", "clock"):
            setattr(account, name, one)
        else:
            raise KeyError(name)
    return {}


def add_cluster(account, value):
    name, providers, default = value["name"], value.get("providers", []), value.get("default", [])
    default = [{"capacityProvider": item, "weight": 1, "base": 0} for item in default]
    if name in account.ecs.clusters:
        account.ecs.put_cluster_capacity_providers(name, providers, default)
    else:
        account.ecs.create_cluster(name, capacity_providers=providers, default_capacity_provider_strategy=default)
    return {"arn": account.ecs.clusters[name].arn}


def add_definition(account, value):
    definition = account.ecs.register_task_definition(
        family=value["family"],
        container_definitions=value["containerDefinitions"],
        network_mode=value.get("networkMode", "awsvpc"),
        requires_compatibilities=value.get("requiresCompatibilities", ["FARGATE"]),
        cpu=value.get("cpu", "256"),
        memory=value.get("memory", "512"),
        task_role_arn=value.get("taskRoleArn"),
        execution_role_arn=value.get("executionRoleArn"),
        tags=value.get("tags"),
    )
    return {"arn": definition.arn}


def add_role(account, value):
    arn = f"arn:aws:iam::{account.id}:role/{value['name']}"
    policy = Policy(value["policy"]) if value.get("policy") is not None else None
    account.roles[arn] = world.Role(arn, policy, value.get("external_id"), value.get("trust_tags", True))
    return {"arn": arn}


def add_fate(account, value):
    check_fate(value)
    account.fates.append({"times": 1, **value})


def meet(account, value):
    task = account.tasks[value.pop("task")]
    check_fate(value)
    clock.after(value.get("after", 0), lambda: task.meet(value))


def check_fate(value):
    if value["kind"] not in FATES:
        raise KeyError(value["kind"])


def add_instance_fate(account, value):
    if value["kind"] not in INSTANCE_FATES:
        raise KeyError(value["kind"])
    account.estate.fates.append({"times": 1, **value})


def instance_meet(account, value):
    instance = account.estate.instances[value.pop("instance")]
    if value["kind"] not in INSTANCE_FATES:
        raise KeyError(value["kind"])
    clock.after(value.get("after", 0), lambda: instance.meet(value))


def add_profile(account, value):
    arn = f"arn:aws:iam::{account.id}:instance-profile/{value['name']}"
    account.estate.profiles.add(arn)
    return {"arn": arn}


def set_tags(account, value):
    estate = account.estate
    if value["id"] in estate.instances:
        estate.instances[value["id"]].tags = value["tags"]
    else:
        ({**estate.volumes, **estate.spot_requests})[value["id"]]["tags"] = value["tags"]


def expire_keys(account, _value):
    for instance in account.estate.instances.values():
        instance.sent_keys.clear()


ADD = {
    "shortages": lambda account, value: account.estate.shortages.append(value),
    "instance_fates": add_instance_fate,
    "instance_meet": instance_meet,
    "subnets": lambda account, value: {"subnet": account.add_subnet(value["zone"])},
    "free_addresses": lambda account, value: account.estate.free_addresses.update({value["subnet"]: value["count"]}),
    "images": lambda account, value: account.estate.add_image(value),
    "parameters": lambda account, value: account.estate.parameters.update({value["name"]: value["image"]}),
    "profiles": add_profile,
    "key_pairs": lambda account, value: account.estate.key_pairs.add(value["name"]),
    "age": lambda account, value: account.estate.age(value["seconds"]),
    "surplus": lambda account, value: setattr(account.estate, "surplus", value["count"]),
    "expire_keys": expire_keys,
    "stale_keys": lambda account, value: setattr(account.estate, "stale_keys", value["count"]),
    "tags": set_tags,
    "leave": lambda account, value: account.estate.leave.append(value["kind"]),
    "clusters": add_cluster,
    "providers": lambda account, value: account.providers.add(value["name"]),
    "definitions": add_definition,
    "machines": lambda account, value: account.machines.update({value.get("family", "*"): value}),
    "roles": add_role,
    "faults": lambda account, value: account.faults.rules.append(Fault(**value)),
    "fates": add_fate,
    "meet": meet,
}
