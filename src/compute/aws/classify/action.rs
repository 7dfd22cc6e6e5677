//! The calls to AWS that there are, by the names that policies use.

/// A call to AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// ECS RunTask.
    RunTask,
    /// ECS DescribeTasks.
    DescribeTasks,
    /// ECS StopTask.
    StopTask,
    /// ECS ListTasks.
    ListTasks,
    /// STS AssumeRole.
    AssumeRole,
    /// EC2 DescribeNetworkInterfaces.
    DescribeNetworkInterfaces,
    /// EC2 CreateFleet.
    CreateFleet,
    /// EC2 CreateLaunchTemplate.
    CreateLaunchTemplate,
    /// EC2 DescribeInstances.
    DescribeInstances,
    /// EC2 TerminateInstances.
    TerminateInstances,
    /// EC2 DescribeSubnets.
    DescribeSubnets,
    /// EC2 DescribeImages.
    DescribeImages,
    /// EC2 DescribeLaunchTemplateVersions.
    DescribeLaunchTemplateVersions,
    /// EC2 DescribeLaunchTemplates.
    DescribeLaunchTemplates,
    /// EC2 DeleteLaunchTemplate.
    DeleteLaunchTemplate,
    /// EC2 DescribeSpotInstanceRequests.
    DescribeSpotInstanceRequests,
    /// EC2 CancelSpotInstanceRequests.
    CancelSpotInstanceRequests,
    /// EC2 DescribeVolumes.
    DescribeVolumes,
    /// EC2 DeleteVolume.
    DeleteVolume,
    /// ECR GetAuthorizationToken.
    GetAuthorizationToken,
    /// EC2 Instance Connect's SendSSHPublicKey.
    SendSshPublicKey,
}

impl Action {
    /// Returns the name that a policy uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RunTask => "ecs:RunTask",
            Self::DescribeTasks => "ecs:DescribeTasks",
            Self::StopTask => "ecs:StopTask",
            Self::ListTasks => "ecs:ListTasks",
            Self::AssumeRole => "sts:AssumeRole",
            Self::DescribeNetworkInterfaces => "ec2:DescribeNetworkInterfaces",
            Self::CreateFleet => "ec2:CreateFleet",
            Self::CreateLaunchTemplate => "ec2:CreateLaunchTemplate",
            Self::DescribeInstances => "ec2:DescribeInstances",
            Self::TerminateInstances => "ec2:TerminateInstances",
            Self::DescribeSubnets => "ec2:DescribeSubnets",
            Self::DescribeImages => "ec2:DescribeImages",
            Self::DescribeLaunchTemplateVersions => "ec2:DescribeLaunchTemplateVersions",
            Self::DescribeLaunchTemplates => "ec2:DescribeLaunchTemplates",
            Self::DeleteLaunchTemplate => "ec2:DeleteLaunchTemplate",
            Self::DescribeSpotInstanceRequests => "ec2:DescribeSpotInstanceRequests",
            Self::CancelSpotInstanceRequests => "ec2:CancelSpotInstanceRequests",
            Self::DescribeVolumes => "ec2:DescribeVolumes",
            Self::DeleteVolume => "ec2:DeleteVolume",
            Self::GetAuthorizationToken => "ecr:GetAuthorizationToken",
            Self::SendSshPublicKey => "ec2-instance-connect:SendSSHPublicKey",
        }
    }

    /// Whether it is about instances: `[ec2]` is what remedies name then.
    pub(super) fn is_of_instances(self) -> bool {
        let name = self.name();
        let of_ec2 = name.starts_with("ec2:") || name.starts_with("ec2-instance-connect:");
        of_ec2 && self != Self::DescribeNetworkInterfaces
    }
}
