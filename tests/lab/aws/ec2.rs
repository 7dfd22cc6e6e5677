//! The account's EC2 side: what a test can set, have go wrong, and see.
//!
//! An instance is a machine as a task is, with real `sshd` at an address in 127/8; but it knows the job's key and its own
//! host key only from the user data that came with the launch, of which the lab does cloud-init's part. Wrong user data
//! makes a machine that nobody can log in to.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::Account;
use super::GONE_WITHIN;
use super::control;
use super::http;
use super::seen::Instance;
use super::seen::JOB_TAG;
use super::servers;
use crate::lab::aws::State;

/// The instance types of the ordinary `[ec2]` table, in their order.
pub(crate) const TYPES: [&str; 2] = ["m7i.large", "m6a.large"];

/// What has no room, and in what words EC2 says so.
#[derive(Clone, Debug)]
pub(crate) struct Shortage(Value);

impl Shortage {
    /// All pools are short, for ever, with this code and message.
    pub(crate) fn new(code: &str, message: &str) -> Self {
        Self(json!({ "code": code, "message": message }))
    }

    /// The usual one: `InsufficientInstanceCapacity`.
    pub(crate) fn capacity() -> Self {
        Self::new(
            "InsufficientInstanceCapacity",
            "We currently do not have sufficient capacity in the Availability Zone you requested. Our system will be \
             working on provisioning additional capacity.",
        )
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0[name] = value.into();
        self
    }

    /// Of that instance type alone.
    #[must_use]
    pub(crate) fn of_type(self, kind: &str) -> Self {
        self.with("type", kind)
    }

    /// In that zone alone (`eu-west-1a`).
    #[must_use]
    pub(crate) fn in_zone(self, zone: &str) -> Self {
        self.with("zone", zone)
    }

    /// On that market alone: `spot` or `on-demand`.
    #[must_use]
    pub(crate) fn on_market(self, market: &str) -> Self {
        self.with("market", market)
    }

    /// Meets so many attempts, and no more.
    #[must_use]
    pub(crate) fn times(self, times: u32) -> Self {
        self.with("times", times)
    }

    /// Has room for so many instances yet.
    #[must_use]
    pub(crate) fn after(self, instances: u32) -> Self {
        self.with("room", instances)
    }
}

/// What becomes of one of the next instances; or, at once, of one that is there.
#[derive(Clone, Debug)]
pub(crate) struct InstanceFate(Value);

impl InstanceFate {
    fn new(kind: &str) -> Self {
        Self(json!({ "kind": kind }))
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0[name] = value.into();
        self
    }

    /// Stays `pending` for ever.
    pub(crate) fn never_comes_up() -> Self {
        Self::new("stuck").with("at", "pending")
    }

    /// Is terminated by EC2 while pending, for this reason.
    pub(crate) fn fails(code: &str, reason: &str) -> Self {
        let fate = Self::new("fail").with("at", "pending");
        fate.with("code", code).with("reason", reason)
    }

    /// Runs, and never listens.
    pub(crate) fn never_listens() -> Self {
        Self::new("deaf")
    }

    /// Has another host key than the one that was sent.
    pub(crate) fn other_host_key() -> Self {
        Self::new("impostor")
    }

    /// Goes off while it boots; its shutdown behaviour says what that means.
    pub(crate) fn dies_booting() -> Self {
        Self::new("dies")
    }

    /// Spot wants it back, so long after it runs: the notice at once, the end after `notice`.
    pub(crate) fn spot_interruption(after: Duration, notice: Duration) -> Self {
        let fate = Self::new("spot").with("after", after.as_secs_f64());
        fate.with("notice", notice.as_secs_f64())
    }

    /// Somebody terminates it, so long after it runs.
    pub(crate) fn terminated_by_someone(after: Duration) -> Self {
        Self::new("someone").with("after", after.as_secs_f64())
    }

    /// Its power goes off from inside, as by `poweroff`.
    pub(crate) fn power_off() -> Self {
        Self::new("off")
    }

    /// Is that of so many instances.
    #[must_use]
    pub(crate) fn times(self, times: u32) -> Self {
        self.with("times", times)
    }

    /// Is only for instances of that market: `spot` or `on-demand`.
    #[must_use]
    pub(crate) fn on_market(mut self, market: &str) -> Self {
        self.0["match"]["market"] = market.into();
        self
    }
}

impl Account {
    /// Returns the id of an x86_64 image with a root device of 8 GiB.
    pub(crate) fn image(&self) -> &str {
        &self.image
    }

    /// Returns the table `[ec2]` with that image, two instance types and both subnets.
    pub(crate) fn ec2_table(&self) -> String {
        format!(
            "[ec2]\nregion = \"{}\"\nimage_id = \"{}\"\ninstance_types = {TYPES:?}\nsubnets = {:?}\n\
             security_groups = [\"{}\"]\n",
            self.region(),
            self.image,
            self.subnets(),
            self.security_group()
        )
    }

    /// Puts a machine behind the addresses of the instances of a job, known by their tag; without one, of all others.
    pub(crate) fn machine_of_instances(&self, job: Option<u64>, server: &servers::Server) {
        let family = job.map_or_else(|| "instances".to_owned(), |job| format!("job {job}"));
        let log = server.log_file();
        let machine = json!({
            "family": family, "command": server.command(), "log": log, "user": server.user(),
        });
        self.post("machines", &machine);
    }

    /// Takes room away.
    pub(crate) fn shortage(&self, shortage: &Shortage) {
        self.post("shortages", &shortage.0);
    }

    /// Gives all room back.
    pub(crate) fn no_shortages(&self) {
        control(self.server, "DELETE", &self.path("shortages"), &Value::Null);
    }

    /// Says what becomes of the next instance that has no fate yet.
    pub(crate) fn instance_fate(&self, fate: &InstanceFate) {
        self.post("instance_fates", &fate.0);
    }

    /// Says what becomes of an instance that is there, now (or so long from now).
    pub(crate) fn instance_meets(&self, instance: &str, fate: &InstanceFate) {
        let mut order = fate.0.clone();
        order["instance"] = instance.into();
        self.post("instance_meet", &order);
    }

    /// Gives an instance the notice that Spot takes it back in so long.
    pub(crate) fn notice(&self, instance: &str, left: Duration) {
        let fate = InstanceFate::spot_interruption(Duration::ZERO, left);
        self.instance_meets(instance, &fate);
    }

    /// Makes another subnet, in that zone (`a`); returns its id.
    pub(crate) fn subnet_in(&self, zone: &str) -> String {
        let answer = self.post("subnets", &json!({ "zone": zone }));
        answer["subnet"].as_str().expect("an id").to_owned()
    }

    /// Leaves a subnet so many free addresses.
    pub(crate) fn free_addresses(&self, subnet: &str, count: u32) {
        self.post(
            "free_addresses",
            &json!({ "subnet": subnet, "count": count }),
        );
    }

    /// Makes an image, whose properties are those of `DescribeImages`, and `Stock`: whether root is banned from it, as from
    /// all that are published (the default); returns its id.
    pub(crate) fn add_image(&self, properties: &Value) -> String {
        let answer = self.post("images", properties);
        answer["ImageId"].as_str().expect("an id").to_owned()
    }

    /// Makes an SSM parameter that holds an image's id.
    pub(crate) fn parameter(&self, name: &str, image: &str) {
        self.post("parameters", &json!({ "name": name, "image": image }));
    }

    /// Makes an instance profile with a role of the same name; returns its ARN.
    pub(crate) fn instance_profile(&self, name: &str) -> String {
        let answer = self.post("profiles", &json!({ "name": name }));
        answer["arn"].as_str().expect("an ARN").to_owned()
    }

    /// Makes a key pair.
    pub(crate) fn key_pair(&self, name: &str) {
        self.post("key_pairs", &json!({ "name": name }));
    }

    /// Has the next instance to end leave its `volume` or `spot-request` behind.
    pub(crate) fn leave_behind(&self, kind: &str) {
        self.post("leave", &json!({ "kind": kind }));
    }

    /// Has a minute pass for all keys that EC2 Instance Connect has sent.
    pub(crate) fn expire_sent_keys(&self) {
        self.post("expire_keys", &json!({}));
    }

    /// Has so many of the next keys that EC2 Instance Connect sends come too late.
    pub(crate) fn stale_keys(&self, count: u32) {
        self.post("stale_keys", &json!({ "count": count }));
    }

    /// Replaces all tags of an instance, a volume or a Spot request, as somebody who may tag can.
    pub(crate) fn retag(&self, id: &str, tags: &BTreeMap<String, String>) {
        self.post("tags", &json!({ "id": id, "tags": tags }));
    }

    /// Makes volumes, Spot requests and templates so many seconds older than they are.
    pub(crate) fn age(&self, seconds: u64) {
        self.post("age", &json!({ "seconds": seconds }));
    }

    /// Gives the next fleet so many instances more than were asked for.
    pub(crate) fn surplus(&self, count: u32) {
        self.post("surplus", &json!({ "count": count }));
    }

    /// Returns all instances ever, oldest first.
    pub(crate) fn instances(&self) -> Vec<Instance> {
        self.state().instances
    }

    /// Returns the instances that are not over.
    pub(crate) fn instances_alive(&self) -> Vec<Instance> {
        let instances = self.instances().into_iter();
        instances.filter(Instance::is_alive).collect()
    }

    /// Waits for an instance as wanted, and returns the first.
    ///
    /// # Panics
    ///
    /// As [`Account::wait`].
    pub(crate) fn wait_instance(&self, what: &str, wanted: impl Fn(&Instance) -> bool) -> Instance {
        let state = self.wait(what, |state| state.instances.iter().any(&wanted));
        let mut instances = state.instances.into_iter();
        instances.find(wanted).expect("as waited for")
    }

    /// Waits a little until nothing of EC2's lives any more (of a job, where one is given); returns what does.
    pub(crate) fn ec2_left(&self, job: Option<u64>) -> Vec<String> {
        let job = job.map(|job| job.to_string());
        self.wait_none(GONE_WITHIN, |state: &State| {
            state.ec2_alive(|tags| job.is_none() || tags.get(JOB_TAG) == job.as_ref())
        })
    }

    /// Makes a call of EC2's as the account's user, with parameters in query form.
    pub(crate) fn ec2(&self, action: &str, form: &str) -> http::Answer {
        let form = format!("Action={action}&Version=2016-11-15&{form}");
        self.query("ec2", None, &form).expect("an answer")
    }
}
