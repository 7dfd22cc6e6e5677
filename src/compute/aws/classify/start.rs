//! What is made ready for a container and fails before its process runs: secrets, logs, files, volumes, the runtime itself.

use super::table::{From, Row, UNREACHED, row};
use crate::machine::verdict::Why;

const INIT_PAGE: &str = "ECS guide: ResourceInitializationError errors";
const START_PAGE: &str = "ECS guide: CannotStartContainerError, CannotCreateContainerError";
const STOPPED: &str = "ECS guide: Stopped task error messages";

/// On instances of the cluster's own ECS's agent tells it without the error's name.
const INIT: &[&str] = &["resourceinitializationerror", "fetching secret data from"];
/// A container that was not started, under either name.
const START: &[&str] = &[
    "cannotstartcontainererror",
    "cannotcreatecontainererror",
    "resourceinitializationerror",
];
const EFS: &[&str] = &[
    "failed to invoke efs utils",
    "failed to set up efs",
    "failed to mount efs",
    "mount.nfs4",
];
const LOGS: &[&str] = &[
    "failed to validate logger args",
    "failed to initialize logging driver",
    "failed to create cloudwatch log",
    "failed to initialize logger",
    "unable to generate firelens config",
    "unable to create firelens config",
];
const FILES: &[&str] = &["failed to download env files"];
const SECRETS: &[&str] = &[
    "unable to retrieve secret",
    "unable to retrieve secrets",
    "unable to get registry auth from asm",
    "unable to get secret",
    "failed to fetch secret",
    "retrieved secret from",
];

const REACH: &str = "Give the subnets under [fargate] a way to AWS: a NAT gateway, `enable_public_ip = true` in public subnets, or VPC \
     endpoints (ecr.api, ecr.dkr, s3, logs, secretsmanager, ssm), with DNS support on in the VPC and port 443 open outwards.";
const AGAIN: &str = "AWS did not answer as it should this once; retry the job later.";
const SECRET: &str = "Correct `secrets` (for a registry `repositoryCredentials`) in the task definition: the secret, the parameter, its version or its JSON key does not exist (in this region), or is no such text.";
const ENTRYPOINT: &str = "Correct the ENTRYPOINT and CMD of the image of {container}, or `entryPoint` and `command` in the task definition (`entryPoint` there throws away the image's CMD as well).";
const USER: &str = "Correct `user` of {container} in the task definition, or the image's USER: its /etc/passwd and /etc/group do not have it.";
const VOLUMES: &str = "Correct `volumes` and `mountPoints` in the task definition, or what the volume needs (EFS access point, file system, plug-in).";
const HOST: &str =
    "The host under the task failed; retry the job, and tell AWS support if this goes on.";
const EXECUTION: &str = "Allow the task definition's *execution* role (not the driver's) what the cause names: secretsmanager:GetSecretValue, ssm:GetParameters and kms:Decrypt for secrets, \
     logs:CreateLogStream and logs:PutLogEvents for logs, s3:GetObject for `environmentFiles`, ecr:GetAuthorizationToken for ECR.";

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    // Where the far side is only busy or broken, whatever it was asked for.
    row(From::Stop, Why::Busy, AGAIN, "ts-29")
        .within(&[INIT]).names(&["*Throttl*", "TooManyRequests*", "RequestLimitExceeded", "InternalService*", "InternalServer*", "InternalFailure", "InternalError", "ServiceUnavailable*", "ServerException",
            "KMSInternal*", "DependencyTimeout*", "SlowDown", "RequestTimeout*", "OperationAborted*", "ResourceAlreadyExists*", "ConflictException"]).says(&["rate exceeded", "panic"]).status(500, 599),
    row(From::Stop, Why::Busy, AGAIN, "ts-03")
        .within(&[INIT]).says(&["failed to configure eni", "failed to setup", "netplugin failed"]),

    row(From::Stop, Why::Outage, HOST, "containerd: errors of its own connections")
        .within(&[START, &["failed to create new container runtime task", "oci runtime create failed"]]).says(&["context deadline exceeded", "context canceled", "ttrpc", "failed to start shim", "failed to mount rootfs component", "unable to join session keyring", "join session keyring", "error loading seccomp filter into kernel"]),

    // A file system over the network.
    row(From::Stop, Why::Settings, "Correct the `rootDirectory` of the EFS volume in the task definition, or make that directory in the file system: EFS has no such path.", "ts-39")
        .within(&[INIT, EFS]).says(&["no such file or directory"]),
    row(From::Stop, Why::Denied, "Let the task role mount the file system (elasticfilesystem:ClientMount, and ClientWrite), in its own policy and in the file system's; an access point needs `iam` and encryption in transit on in the volume.", "ts-40")
        .within(&[INIT, EFS]).says(&["access denied", "permission denied", "operation not permitted"]).names(&["AccessDenied*"]),
    row(From::Stop, Why::Network, "Let the task reach its EFS mount targets (port 2049 in their security group, one in each zone of `subnets`, DNS on in the VPC), and the task role use the file system.", "ts-64")
        .within(&[INIT, EFS]),

    // Where logs go.
    row(From::Stop, Why::Settings, "Set `awslogs-region` of `logConfiguration` in the task definition: it names no region, or one that does not exist.", "ts-44")
        .within(&[START, LOGS]).names(&["MissingEndpoint", "MissingRegion"]).says(&["'endpoint' configuration is required", "could not find region"]),
    row(From::Stop, Why::Network, REACH, "ts-45; ECS guide: ResourceInitializationError errors")
        .within(&[START, LOGS]).says(UNREACHED).names(&["RequestError", "RequestCanceled"]),
    row(From::Stop, Why::Denied, EXECUTION, INIT_PAGE)
        .within(&[START, LOGS]).names(&["AccessDenied*", "UnauthorizedOperation", "NoCredentialProviders", "CredentialsEndpointError"]).says(&["access denied", "user", "not authorized to perform"]),
    row(From::Stop, Why::Settings, "Correct `logConfiguration` in the task definition: FireLens (`awsfirelens`) and the fluentd driver need a container with `firelensConfiguration` and options for {container}.", "ts-43")
        .within(&[START, LOGS]).says(&["failed to get*log driver arguments", "logging driver specified", "failed to create fluentd", "fluentd", "unable to apply log options", "unable to download s3 config"]),
    row(From::Stop, Why::Settings, "Create the log group that `logConfiguration` in the task definition names, or set `awslogs-create-group` and allow its execution role logs:CreateLogGroup.", "ts-65; ECS guide: ResourceInitializationError errors")
        .within(&[START, LOGS]).names(&["ResourceNotFoundException"]).says(&["the specified log group does not exist", "the task cannot find the amazon cloudwatch log group"]),
    row(From::Stop, Why::Settings, "Correct `logConfiguration` in the task definition: its log group, region or options are not what the log driver takes.", INIT_PAGE)
        .within(&[START, LOGS]),

    // Files of variables.
    row(From::Stop, Why::Network, REACH, "ts-38; ECS guide: ResourceInitializationError errors")
        .within(&[INIT, FILES]).says(UNREACHED).names(&["RequestCanceled", "RequestError"]),
    row(From::Stop, Why::Denied, "Allow the task definition's *execution* role s3:GetObject on what `environmentFiles` names (and s3:GetBucketLocation on its bucket); the bucket's own policy may forbid it too.", "ts-36")
        .within(&[INIT, FILES]).names(&["Forbidden", "AccessDenied*"]).status(403, 403).says(&["access denied", "forbidden", "user"]),
    row(From::Stop, Why::Settings, "Correct `environmentFiles` in the task definition: S3 has no such file or bucket, or the file is not lines of NAME=VALUE.", "ts-37")
        .within(&[INIT, FILES]),

    // Secrets, and the registry's password.
    row(From::Stop, Why::Denied, "Allow the task definition's *execution* role kms:Decrypt on the key of the secret or parameter, in its own policy and in the key's.", "ts-31")
        .within(&[INIT]).says(&["access to kms is not allowed", "kms:decrypt", "the ciphertext refers to a customer master key"]).names(&["KMS*", "DecryptionFailure*"]),
    row(From::Stop, Why::Denied, EXECUTION, INIT_PAGE)
        .within(&[INIT]).names(&["AccessDenied*", "UnauthorizedOperation", "NotAuthorized*", "Forbidden", "UnrecognizedClientException", "NoCredentialProviders"])
        .says(&["access denied", "user", "not authorized", "is not authorized to perform", "check that the task execution role", "check that the execution role", "check that the role"]),
    row(From::Stop, Why::Network, REACH, "ts-32, ts-33, ts-35, ts-54; ECS guide: ResourceInitializationError errors; Go: package net")
        .within(&[INIT]).says(UNREACHED).names(&["RequestCanceled", "RequestError"]),
    row(From::Stop, Why::Settings, SECRET, "ts-30, ts-62; Secrets Manager API: GetSecretValue, Errors; SSM API: GetParameters, Errors")
        .within(&[INIT, SECRETS]).names(&["ResourceNotFound*", "ParameterNotFound*", "ParameterVersionNotFound*", "InvalidRequestException", "InvalidParameter*", "InvalidKeyId*", "Validation*"])
        .says(&["retrieved secret from*did not contain json key", "did not contain json key", "secrets manager can't find", "invalid ssm parameters", "invalid parameters", "invalid character", "*contain json key"]),
    row(From::Stop, Why::Settings, SECRET, INIT_PAGE)
        .within(&[INIT]).names(&["ResourceNotFound*", "ParameterNotFound*", "ParameterVersionNotFound*"])
        .says(&["retrieved secret from*did not contain json key", "invalid ssm parameters", "invalid parameters", "secrets manager can't find", "the task can't find the secret", "the task cannot find the secret", "the task can't find the parameter", "the task cannot find the parameter"]),
    // AWS's client has tried some times and says no more: nobody answered.
    row(From::Stop, Why::Network, REACH, "ts-34; ECS guide: ResourceInitializationError errors")
        .within(&[INIT, &["unable to pull secrets or registry auth", "the task cannot pull registry auth", "unable to retrieve ecr registry auth"]])
        .last(&["service call has been retried", "execution resource retrieval failed", "unable to retrieve", "unable to get", "unable to pull secrets or registry auth", "failed to fetch secret", "pull command failed", "the task cannot pull"]),

    // The runtime, and what the container is to be.
    row(From::Stop, Why::Image, "What the image starts is for another processor, or a script without `#!` line: build it for the task definition's `runtimePlatform`.", "ts-21")
        .says(&["exec format error"]),
    row(From::Stop, Why::Settings, "Raise `memory` of {container} in the task definition: it is less than the runtime itself needs to start.", "ts-46")
        .within(&[START]).says(&["container init was oom-killed", "oom-killed", "minimum memory limit", "memory limit too low", "the paging file is too small"]),
    row(From::Stop, Why::Settings, "Correct `ulimits` of {container} in the task definition: the host does not let a container have as much.", "ts-51")
        .within(&[START]).says(&["error setting rlimit", "setting rlimits", "setrlimit"]),
    row(From::Stop, Why::Settings, USER, "ts-49, ts-50")
        .within(&[START]).says(&["unable to find user", "unable to find group", "linux spec user", "no matching entries in passwd file", "no matching entries in group file", "open*/etc/passwd", "open*/etc/group", "no users found"]),
    row(From::Stop, Why::Settings, "Correct `workingDirectory` of {container} in the task definition, or the image's WORKDIR: the image has no such directory, or its user may not enter it.", "runc: init, working directory")
        .within(&[START]).says(&["chdir to cwd", "mkdir*working directory", "the working directory"]),
    row(From::Stop, Why::Image, "The image was built for another operating system (Windows release or processor): push it for the task definition's `runtimePlatform`.", "docker for Windows: hcsshim")
        .within(&[START]).says(&["the container operating system does not match the host operating system"]),
    row(From::Stop, Why::Settings, "{container} asks for a GPU (`resourceRequirements` in the task definition) and the instance has no driver for it: take ECS's GPU image for the capacity provider's instances, or leave the GPU out.", "docker: device requests")
        .within(&[START]).says(&["could not select device driver"]),
    row(From::Stop, Why::Exited, "{container} got no GPU of its instance: see that the instance has ECS's GPU image and its driver works (nvidia-smi), or replace it.", "NVIDIA container toolkit: nvidia-container-cli")
        .within(&[START]).says(&["nvidia-container-cli", "auto-detected mode as*nvidia-container-cli"]),
    row(From::Stop, Why::Image, ENTRYPOINT, "ts-47, ts-48; ECS guide: CannotStartContainerError, CannotCreateContainerError")
        .within(&[START, &["exec", "exec*"]]).says(&["no such file or directory", "permission denied", "executable file not found", "is a directory", "not a directory", "stat"]),
    row(From::Stop, Why::Image, ENTRYPOINT, "docker: errors of container create")
        .says(&["no command specified", "executable file not found", "no such executable"]),
    row(From::Stop, Why::Settings, "Give the EFS access point of that volume the user that writes it (or the image another USER): a file system over the network lets nobody change owners.", "ts-42")
        .within(&[START]).says(&["failed to chown", "chown", "lchown", "failed to copy file info", "failed to chmod"]),
    row(From::Stop, Why::Settings, VOLUMES, "docker: errors of container create")
        .within(&[START]).says(&["error while creating mount source path", "error mounting", "invalid mount", "duplicate mount point", "bind source path does not exist", "failed to mount", "invalid volume", "error while mounting volume"]),
    row(From::Stop, Why::Settings, "Correct `linuxParameters` of {container} in the task definition: the host has no such device.", "ECS guide: Task definition parameters, devices")
        .within(&[START]).says(&["error gathering device information"]),
    row(From::Stop, Why::Outage, HOST, "docker: errors of volume plug-ins")
        .within(&[&["cannotcreatevolumeerror"]]).says(&["context deadline exceeded", "timed out", "timeout", "i/o timeout", "connection refused", "connect: connection refused", "request canceled", "could not transition"]),
    row(From::Stop, Why::Settings, VOLUMES, "ts-41; ECS guide: Stopped task error messages")
        .within(&[&["cannotcreatevolumeerror"]]),
    row(From::Stop, Why::Outage, HOST, "ts-08")
        .within(&[START]).says(&["devicemapper", "devmapper", "thin pool", "containerd: connection error", "cannot connect to the docker daemon", "grpc", "unavailable", "conflict"]),
    row(From::Stop, Why::Outage, HOST, "ts-06, ts-07, ts-63; ECS guide: Stopped task error messages")
        .within(&[&["containerruntimetimeouterror", "containerruntimeerror", "dockertimeouterror", "dockerstateerror", "cannotinspectcontainererror", "cannotdescribecontainererror", "cannotstopcontainererror", "internalerror"]]),
    row(From::Stop, Why::Exited, "Run the image of {container} with the task definition's command and limits by hand (`docker run`) and see what it says; it may want more `memory`.", START_PAGE)
        .within(&[&["cannotstartcontainererror", "cannotcreatecontainererror"]]),
    row(From::Stop, Why::Exited, "Run the image of {container} with the task definition's command and limits by hand (`docker run`) and see what it says.", STOPPED)
        .within(&[INIT, &["failed to create new container runtime task", "unable to create new container", "failed to create container"]]),
];
