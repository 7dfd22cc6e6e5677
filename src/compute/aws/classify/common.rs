//! What all services say alike: too many calls, who calls, what is not allowed, AWS in trouble, no answer.

use super::table::{DENIED, From, Row, row};
use crate::machine::verdict::Why;

const API: &str = "Common errors of AWS's query and JSON APIs";
const IAM: &str = "IAM guide: Troubleshoot access denied error messages";
const STS: &str = "STS API: AssumeRole, Errors";

const THROTTLED: &str = "AWS limits how often {call} may be called; have fewer jobs start at once (`request_concurrency`, `concurrent` in the Runner's config.toml), \
     or ask AWS to raise the limit.";
const CLOCK: &str =
    "Set this host's clock (chronyc tracking): AWS refuses requests that are five minutes off.";
const VALID: &str = "Give the driver valid credentials of the right partition (an instance profile on the bastion is best; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY otherwise), \
     and check this host's clock.";
const GIVE: &str = "Give the driver credentials: an instance profile on the bastion is best; with environment variables or a profile, set them for the Runner's own process.";
const UNGIVEN: &str = "This host does not reach what gives the driver its credentials (STS for a role, or what the AWS profile names): check its route, DNS, proxy and \
     security group (port 443) for that as well.";
const PROVIDERS: &str = "AWS SDK for Rust: aws-config's credential providers";
const TROUBLE: &str = "AWS is in trouble (health.aws.amazon.com); the call was sent again for some minutes; retry the job later.";
const ACCOUNT: &str = "AWS has not opened this account for it, or has closed it: the account's own mail says more, else AWS support.";

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    // Too many calls. The code says so, or a cause within another service's error.
    row(From::Call, Why::Throttled, THROTTLED, API)
        .code(&["*Throttl*", "TooManyRequests*", "RequestLimitExceeded", "RequestResourceCountExceeded", "SlowDown", "*RateExceeded", "PriorRequestNotComplete", "ConcurrentTagAccess"]),
    row(From::Call, Why::Throttled, THROTTLED, "tc-07, fe-29")
        .says(&["rate exceeded", "request rate exceeded", "request limit exceeded", "too many requests"]).names(&["RequestLimitExceeded", "*Throttl*", "TooManyRequests*"]),

    // What a call may not do. The actions first that people forget.
    row(From::Call, Why::Denied, "Allow the driver's role iam:PassRole on the task definition's task role and execution role (with the condition iam:PassedToService = ecs-tasks.amazonaws.com).", "tc-18")
        .says(&["iam:passrole"]),
    row(From::Call, Why::Denied, "Allow the driver's role ecs:TagResource (with the condition ecs:CreateAction = RunTask); until then tasks carry no tags, and `reap` cannot find those of bastions that died for good.", IAM)
        .says(&["ecs:tagresource"]),
    row(From::Call, Why::Denied, "Allow sts:TagSession beside sts:AssumeRole, in the driver's policy *and* in the trust policy of the role that the job assumes, or take SESSION_VARS away.", STS)
        .says(&["sts:tagsession"]),
    row(From::Call, Why::Denied, "Allow the driver's role sts:AssumeRole on that role, and name the driver's role in that role's trust policy; ROLE_ARN or `role_arn` may also be misspelt.", STS)
        .says(&["sts:assumerole"]),
    row(From::Call, Why::Denied, "Allow the driver's role ec2:DescribeNetworkInterfaces: it is what public addresses are read by; or dial private addresses (`use_public_ip = false` under [fargate]).", IAM)
        .says(&["ec2:describenetworkinterfaces"]),
    row(From::Call, Why::Denied, "Allow the driver's role ecr:GetAuthorizationToken (config-examples/iam/bastion-ecr.json), or let the instance's own role log in (`ecr_login = \"instance\"` under [ec2]).", IAM)
        .says(&["ecr:getauthorizationtoken"]),
    row(From::Call, Why::Denied, "Allow the driver's role {action}: `gitlab-aws-driver check --iam` prints the whole policy for this configuration.", IAM)
        .code(DENIED),
    row(From::Call, Why::Denied, ACCOUNT, API)
        .code(&["BlockedException", "Blocked", "PendingVerification", "AccountDisabled*"]),
    row(From::Call, Why::Denied, "Enable this region (or service) for the account, or correct `region` under [fargate].", API)
        .code(&["OptInRequired", "SubscriptionRequiredException"]),

    // Who calls.
    row(From::Call, Why::Credentials, CLOCK, API)
        .code(&["RequestTimeTooSkewed", "RequestExpired"]),
    row(From::Call, Why::Credentials, CLOCK, API)
        .code(&["InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature*", "AuthFailure"])
        .says(&["signature expired", "signature not yet current"]),
    row(From::Call, Why::Credentials, "Renew the driver's credentials: the session token in the environment or in ~/.aws/credentials has expired; an instance profile renews itself.", API)
        .code(&["ExpiredToken*", "TokenRefreshRequired"]),
    row(From::Call, Why::Credentials, VALID, "fe-34; Common errors of AWS's query and JSON APIs")
        .code(&["UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "InvalidSignatureException", "SignatureDoesNotMatch", "AuthFailure", "MissingAuthenticationToken*",
            "IncompleteSignature*"]),
    row(From::Nothing, Why::Credentials, GIVE, PROVIDERS)
        .says(&["*imds"]),
    // Whoever gives them is no further away than AWS is, and comes back as AWS does.
    row(From::Nothing, Why::Outage, UNGIVEN, PROVIDERS)
        .within(&[&["an error occurred while loading credentials"]])
        .says(&["client error (connect", "client error (sendrequest", "*timeout", "request has timed out"]),
    row(From::Nothing, Why::Credentials, GIVE, PROVIDERS)
        .says(&["*credential", "*credentials", "no providers in chain", "*sso token", "*sso session"]),
    row(From::Nothing, Why::Settings, "Set `region` under [fargate] (or AWS_REGION for the Runner's process).", "AWS SDK for Rust: endpoint resolution")
        .says(&["*region must be set", "*no region", "*missing region", "*missing signing region", "*invalid region", "*missingregion"]),

    // AWS itself.
    row(From::Call, Why::Outage, TROUBLE, API)
        .code(&["ServerException", "Internal*Error*", "InternalError", "InternalFailure", "InternalServer*", "ServerInternal", "ServiceUnavailable*", "Unavailable", "RequestTimeout*", "IDPCommunicationError", "ServiceException", "RequestAbortedException"]),
    row(From::Call, Why::Outage, TROUBLE, API)
        .says(&["service unavailable", "internal server error", "bad gateway", "gateway timeout", "please try again later", "try again later"]),
    row(From::Nothing, Why::Outage, "This host does not reach AWS for {call}: check its route, DNS, proxy and security group (port 443), and that `region` under [fargate] exists.", "AWS SDK for Rust: SdkError without an answer"),

    // Quotas, in the codes of AWS's newer services.
    row(From::Call, Why::Quota, "A quota of this account is used up (Service Quotas): ask AWS for more, or run fewer jobs at once.", "ECS API: common errors")
        .code(&["LimitExceededException", "ServiceQuotaExceededException", "*LimitExceeded"]),
    row(From::Call, Why::Settings, "STS is off for this region in the account: turn it on, or correct `region` under [fargate].", STS)
        .code(&["RegionDisabledException"]),
    row(From::Call, Why::Settings, "Send fewer or shorter session tags: take variables out of SESSION_VARS.", STS)
        .code(&["MalformedPolicyDocument*", "PackedPolicyTooLarge*"]),
    row(From::Call, Why::Settings, "Correct ROLE_ARN or `role_arn`, and what the role is assumed with: it has to let sessions last as long as the driver asks for (its maximum session duration), and SESSION_VARS may only hold what STS takes as tags.", STS)
        .code(&["ValidationError"]),
    // What is left of these is always about what was sent.
    row(From::Call, Why::Settings, "Compare what AWS says with the [fargate] table and the task definition.", API)
        .code(&["InvalidParameter*", "Validation*", "SerializationException", "MissingParameter", "InvalidAction", "UnknownOperationException", "MalformedHttpRequestException", "RequestEntityTooLargeException"]),
];
