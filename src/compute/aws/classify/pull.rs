//! Why an image could not be pulled: what ECS's agent, containerd, docker and the registry say, from the error's name to the
//! innermost cause.

use super::table::{From, Row, UNREACHED, row};
use crate::machine::verdict::Why;

const PAGE: &str = "ECS guide: CannotPullContainer task errors";
const REGISTRY_API: &str = "OCI distribution specification: error codes";

/// The error's name: CannotPullContainerError, CannotPullECRContainerError, CannotPullImageManifestError.
const PULL: &[&str] = &["cannotpull*"];

const AGAIN: &str = "The registry did not give the image this time; retry the job, and look at the registry's own status if this goes on.";
const LIMITED: &str = "The registry limits pulls: log in to it by `repositoryCredentials` in the task definition, or pull through ECR (pull-through cache, public.ecr.aws).";
const SPACE: &str = "The image does not fit on the task's disk: raise `ephemeralStorage` in the task definition (or ask for more by AWS_DRIVER_DISK), or make the image smaller.";
const REBUILD: &str = "The image in the registry is not whole, or of a kind that ECS does not take: build and push it anew, with another builder or compression.";
const REACH: &str = "Give the subnets under [fargate] a way to the registry: a NAT gateway, `enable_public_ip = true` in public \
     subnets, or VPC endpoints (ecr.api, ecr.dkr, s3) whose security group lets the task in on port 443.";

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    row(From::Stop, Why::Registry, LIMITED, "ts-22; ECS guide: CannotPullContainer task errors")
        .within(&[PULL]).status(429, 429).says(&["toomanyrequests", "too many requests", "you have reached your*pull rate limit", "you have reached your*rate limit", "rate exceeded", "pull rate limit"])
        .names(&["*Throttl*", "TooManyRequests*", "UpstreamTooManyRequests"]),
    row(From::Stop, Why::Outage, "The host under the task failed; retry the job, and tell AWS support if this goes on.", "docker: devicemapper, its own storage")
        .within(&[PULL]).says(&["devicemapper", "devmapper", "input/output error", "read-only file system"]),
    row(From::Stop, Why::Registry, AGAIN, "ECR: tokens of twelve hours")
        .within(&[PULL]).says(&["your authorization token has expired"]),
    row(From::Stop, Why::Settings, SPACE, "ts-17; ECS guide: CannotPullContainer task errors")
        .within(&[PULL]).says(&["no space left on device", "not enough space", "disk quota exceeded"]),
    // Cut off before it says why; what fails to be written is a full disk.
    row(From::Stop, Why::Settings, SPACE, "ts-16")
        .within(&[PULL, &["failed to extract layer", "failed to register layer", "failed to copy"]]).says(&["write /"]),
    row(From::Stop, Why::Image, "The image was built for another processor: push it for the task definition's `runtimePlatform` (docker buildx build --platform linux/amd64,linux/arm64), or change that.", "ts-20; ECS guide: CannotPullContainer task errors")
        .within(&[PULL]).says(&["image manifest does not contain descriptor matching platform", "failed to find a descriptor for platform", "no match for platform", "no matching manifest for", "image operating system*cannot be used",
            "descriptor matching platform", "operating system is not supported", "the image*platform", "a windows version*is incompatible with"]),
    row(From::Stop, Why::Network, REACH, "Go: package net/http")
        .within(&[PULL]).says(&["tls handshake timeout"]),
    row(From::Stop, Why::Settings, "The registry's certificate is not one that the task's host trusts: give the registry a certificate of a public CA (with its whole chain), or take the image from another registry.", "ts-13, ts-14")
        .within(&[PULL]).says(&["x509", "failed to verify certificate", "certificate", "bad certificate", "unknown certificate", "expired certificate", "handshake failure", "protocol version not supported", "no application protocol", "first record does not look like a tls handshake", "server gave http response to https client"]),
    row(From::Stop, Why::Image, REBUILD, "ts-12")
        .within(&[PULL]).says(&["number of layers and diffids don't match", "mismatched image rootfs and manifest layers", "unsupported media type", "unexpected media type", "unsupported manifest", "unsupported schema version", "not implemented", "docker image format v1",
            "media type", "manifest invalid", "archive/tar", "invalid tar header", "no processor for", "failed to get stream processor", "max depth exceeded", "invalid image", "unrecognized image format", "encountered unknown type"]),
    // A registry that breaks down says so by its status, whatever was asked for.
    row(From::Stop, Why::Registry, AGAIN, "ts-24, ts-27, ts-28")
        .within(&[PULL]).status(500, 599).names(&["Internal*Error*", "InternalFailure", "ServerException", "ServiceUnavailable*", "UpstreamUnavailable*"]),
    row(From::Stop, Why::Network, REACH, "ts-35, ts-56, ts-57; ECS guide: CannotPullContainer task errors; Go: package net")
        .within(&[PULL]).says(UNREACHED).names(&["RequestCanceled", "RequestError"]),
    row(From::Stop, Why::Image, "Let the task definition's execution role pull it (ecr:GetAuthorizationToken, ecr:BatchCheckLayerAvailability, ecr:GetDownloadUrlForLayer, ecr:BatchGetImage, and the repository's own policy across accounts), \
         or give it `repositoryCredentials`; registries say the same of a name that does not exist.", "ts-15, ts-19, ts-58; ECS guide: CannotPullContainer task errors; OCI distribution specification: error codes")
        .within(&[PULL]).status(401, 401).names(&["AccessDenied*", "*NotAuthorized*", "UnauthorizedException", "UpstreamAccessDenied", "CredentialsNotFound*", "NoCredentialProviders"])
        .says(&["denied", "unauthorized", "no basic auth credentials", "pull access denied", "access denied", "access forbidden", "access to", "authorization failed", "authorization status", "authentication required", "authentication is required",
            "incorrect username or password", "no pull access", "requested access to the resource is denied", "insufficient_scope", "failed to authorize", "server message: insufficient_scope", "forbidden",
            "check that the role has the permissions", "user"]),
    row(From::Stop, Why::Image, "Let the task definition's execution role pull it (ecr:GetAuthorizationToken, ecr:BatchCheckLayerAvailability, ecr:GetDownloadUrlForLayer, ecr:BatchGetImage, and the repository's own policy across accounts), \
         or give it `repositoryCredentials`; registries say the same of a name that does not exist.", REGISTRY_API)
        .within(&[PULL]).status(403, 403),
    row(From::Stop, Why::Image, "Push the image, or correct `image` of the container {container} in the task definition; ECR lifecycle rules may have removed its tag.", "ts-18; ECS guide: CannotPullContainer task errors; OCI distribution specification: error codes")
        .within(&[PULL]).status(404, 404).names(&["ImageNotFound*", "RepositoryNotFound*", "*NotFoundException"])
        .says(&["not found", "manifest unknown", "name unknown", "manifest_unknown", "name_unknown", "name_invalid", "manifest for*not found", "manifest*not found", "repository*not found", "repository*does not exist", "the repository with name*does not exist",
            "requested image not found", "image not found", "image*not found", "the image*does not exist", "invalid reference", "invalid repository name", "repository name must", "does not exist", "not_found", "object not found", "no such image", "check whether the image exists"]),
    row(From::Stop, Why::Registry, AGAIN, PAGE)
        .within(&[PULL]),
];
