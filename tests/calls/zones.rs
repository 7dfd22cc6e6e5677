//! A zone where a region is wanted.

use std::sync::Arc;

use super::refused;
use super::refused_again;
use crate::lab::aws::Account;
use crate::lab::runner::Runner;

#[test]
fn a_zone_is_told_wherever_the_region_comes_from() {
    let account = Arc::new(Account::new());
    let of_go = |region: &str| {
        let runner = Runner::builder()
            .on_account(&account)
            .environment("AWS_REGION", Some("eu-west-1a"))
            .build();
        let file = runner.go_driver_file();
        let own = format!("  Region = \"{}\"\n", account.region());
        runner.write_config(&file.replace(&own, region));
        runner
    };
    for (region, zone, of) in [
        (
            "Region = \"us-west-2-lax-1a\"\n",
            "us-west-2-lax-1a",
            "us-west-2",
        ),
        ("", "eu-west-1a", "eu-west-1"),
    ] {
        let runner = of_go(region);
        let output = refused(
            &runner,
            &format!("\"{zone}\" is a zone, and no region"),
            &format!("Write the region, \"{of}\", in its place"),
        );
        refused_again(&runner, &output);
    }
    // With a file of the driver's own no stage gets so far.
    let runner = Runner::builder().on_account(&account).build();
    let text = runner.default_config();
    let region = format!("region = \"{}\"", account.region());
    runner.write_config(&text.replace(&region, "region = \"eu-west-1a\""));
    let output = runner.config().assert_code(2);
    let told =
        "fargate.region: \"eu-west-1a\" is a zone, and no region: its region is \"eu-west-1\"";
    assert!(output.contains(told), "{output}");
    assert!(account.calls("*").is_empty());
}
