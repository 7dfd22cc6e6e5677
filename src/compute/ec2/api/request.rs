//! The exact request of one launch: what stands in the intent, and how it is said to CreateFleet.
//!
//! Pure. The same [`InstanceRequest`] always gives the same input, since a request that is sent again with its token must
//! be the very same one. What AWS would refuse in words that help nobody is refused here, by the name of the key that is wrong.

use aws_sdk_ec2::operation::create_fleet::builders::CreateFleetInputBuilder;
use aws_sdk_ec2::types::{
    BareMetal, BurstablePerformance, DefaultTargetCapacityType, FleetLaunchTemplateConfigRequest,
    FleetLaunchTemplateOverridesRequest, FleetLaunchTemplateSpecificationRequest,
    FleetOnDemandAllocationStrategy, FleetType, InstanceRequirementsRequest, InstanceType,
    MemoryMiBRequest, OnDemandOptionsRequest, ResourceType, SpotAllocationStrategy,
    SpotOptionsRequest, Tag, TagSpecification, TargetCapacitySpecificationRequest,
    VCpuCountRangeRequest,
};
use base64ct::{Base64, Encoding};

use crate::error::{Error, Kind, Result};
use crate::machine::instance::{InstanceRequest, Least, Market, Subnet, Template};
use crate::machine::tags;
use crate::machine::template::image_reference;

/// Combinations of type and subnet that one fleet takes.
const MAX_POOLS: usize = 300;
/// User data before it is encoded.
const MAX_USER_DATA: usize = 16 * 1024;

impl InstanceRequest {
    /// Returns each combination of type and subnet that will do. Where a least is asked for AWS chooses among the types.
    fn pools(&self) -> Vec<(Option<&str>, Option<&Subnet>)> {
        let types: Vec<Option<&str>> = match self.instance_types.as_slice() {
            _ if !self.least.is_nothing() => vec![None],
            [] => vec![None],
            named => named.iter().map(|t| Some(t.as_str())).collect(),
        };
        let subnets: Vec<Option<&Subnet>> = match self.subnets.as_slice() {
            [] => vec![None],
            named => named.iter().map(Some).collect(),
        };
        let pair = |subnet| types.iter().map(move |kind| (*kind, subnet));
        subnets.into_iter().flat_map(pair).collect()
    }

    /// Refuses what AWS would refuse in any account.
    ///
    /// # Errors
    /// The message names the key and the limit.
    fn check(&self) -> Result<()> {
        let wrong = |what: String, hint: &str| Err(Error::new(Kind::Config, what).hint(hint));
        let pools = self.pools().len();
        if pools > MAX_POOLS {
            return wrong(
                format!(
                    "`instance_types` and `subnets` under [ec2] make {pools} combinations, and AWS takes {MAX_POOLS}"
                ),
                "Name fewer types, or one subnet in each zone.",
            );
        }
        if self.user_data.len() > MAX_USER_DATA {
            return wrong(
                format!(
                    "the user data of the job's instance has {} bytes, and AWS takes {MAX_USER_DATA}",
                    self.user_data.len()
                ),
                "This is the driver's own doing; tell its maintainers.",
            );
        }
        if let Template::Own(setting) = &self.template {
            setting.check(self.dial)?;
            if self.instance_types.is_empty() || self.subnets.is_empty() {
                return wrong(
                    "`instance_types` and `subnets` under [ec2] name no type or no subnet".into(),
                    "Several of both find room more often.",
                );
            }
        }
        if !tags::is_legal_token(&self.token) {
            return Err(Error::new(
                Kind::Bug,
                "the token of the launch is not one that AWS takes",
            ));
        }
        Ok(())
    }
}

/// So high a percentage that AWS takes it for none.
const NO_PRICE_PROTECTION: i32 = 999_999;

/// What carries the tags of the request; an instant fleet takes them for these. What the interface and the Spot request
/// carry stands in the template.
const TAGGED: [ResourceType; 3] = [
    ResourceType::Fleet,
    ResourceType::Instance,
    ResourceType::Volume,
];

/// Returns what to send.
///
/// # Errors
/// Where AWS would refuse it whatever the account looks like; the message names the key and the limit.
pub(super) fn input(request: &InstanceRequest) -> Result<CreateFleetInputBuilder> {
    request.check()?;
    let mut input = CreateFleetInputBuilder::default()
        .client_token(&request.token)
        .r#type(FleetType::Instant)
        .launch_template_configs(
            FleetLaunchTemplateConfigRequest::builder()
                .launch_template_specification(specification(request))
                .set_overrides(Some(overrides(request)))
                .build(),
        );
    let capacity = TargetCapacitySpecificationRequest::builder().total_target_capacity(1);
    input = match request.market {
        Market::Spot => input
            .target_capacity_specification(
                capacity
                    .default_target_capacity_type(DefaultTargetCapacityType::Spot)
                    .build(),
            )
            .spot_options(
                // The lowest price alone is what people report interruptions with.
                SpotOptionsRequest::builder()
                    .allocation_strategy(SpotAllocationStrategy::PriceCapacityOptimized)
                    .build(),
            ),
        Market::OnDemand => input
            .target_capacity_specification(
                capacity
                    .default_target_capacity_type(DefaultTargetCapacityType::OnDemand)
                    .build(),
            )
            .on_demand_options(
                OnDemandOptionsRequest::builder()
                    .allocation_strategy(FleetOnDemandAllocationStrategy::LowestPrice)
                    .build(),
            ),
    };
    for kind in TAGGED {
        let tags = request
            .tags
            .iter()
            .map(|(key, value)| Tag::builder().key(key).value(value).build())
            .collect();
        input = input.tag_specifications(
            TagSpecification::builder()
                .resource_type(kind)
                .set_tags(Some(tags))
                .build(),
        );
    }
    Ok(input)
}

fn specification(request: &InstanceRequest) -> FleetLaunchTemplateSpecificationRequest {
    let specification = FleetLaunchTemplateSpecificationRequest::builder()
        .launch_template_specification_user_data(Base64::encode_string(
            request.user_data.as_bytes(),
        ));
    match &request.template {
        Template::Own(setting) => specification
            .launch_template_name(setting.name())
            // Its only one.
            .version("1"),
        Template::Given(given) => {
            let specification = match given.is_id() {
                true => specification.launch_template_id(&given.name),
                false => specification.launch_template_name(&given.name),
            };
            specification.version(&given.version)
        }
    }
    .build()
}

fn overrides(request: &InstanceRequest) -> Vec<FleetLaunchTemplateOverridesRequest> {
    let price = request.max_price.as_ref().filter(|_| request.is_spot());
    let image = request.image.as_deref().map(image_reference);
    let requirements = requirements(request);
    request
        .pools()
        .into_iter()
        .map(|(kind, subnet)| {
            FleetLaunchTemplateOverridesRequest::builder()
                .set_instance_type(kind.map(InstanceType::from))
                .set_subnet_id(subnet.map(|s| s.id.clone()))
                .set_max_price(price.cloned())
                .set_image_id(image.clone())
                .set_instance_requirements(requirements.clone())
                .build()
        })
        .collect()
}

/// Returns what AWS itself is to choose the type by: of those that are named, any that has enough.
fn requirements(request: &InstanceRequest) -> Option<InstanceRequirementsRequest> {
    let Least { cpu, memory } = request.least;
    if request.least.is_nothing() {
        return None;
    }
    // Both have to be said; and more than 2^31 of either there is nowhere.
    let number = |n: Option<u64>| i32::try_from(n.unwrap_or(0)).unwrap_or(i32::MAX);
    let requirements = InstanceRequirementsRequest::builder()
        .v_cpu_count(
            VCpuCountRangeRequest::builder()
                .min(number(cpu.map(u64::from)))
                .build(),
        )
        .memory_mib(MemoryMiBRequest::builder().min(number(memory)).build())
        // The administrator named the types: which of them are good is not for AWS to say.
        .burstable_performance(BurstablePerformance::Included)
        .bare_metal(BareMetal::Included)
        .spot_max_price_percentage_over_lowest_price(NO_PRICE_PROTECTION)
        .on_demand_max_price_percentage_over_lowest_price(NO_PRICE_PROTECTION)
        .set_allowed_instance_types(
            (!request.instance_types.is_empty()).then(|| request.instance_types.clone()),
        );
    Some(requirements.build())
}

#[cfg(test)]
pub(super) mod tests;
