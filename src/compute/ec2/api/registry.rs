//! ECR's tokens, for instances whose images are pulled by the driver's role.

use std::time::Duration;

use crate::compute::aws::Aws;
use crate::compute::aws::classify::Action;
use crate::error::{Error, Kind, Result};
use crate::machine::access::Access;
use crate::runner::containers::Secret;
use crate::state::shared::Shared;
use crate::ui::Ui;

/// How long ECR is asked, while an instance waits for it.
const TOKEN_LIMIT: Duration = Duration::from_secs(60);

/// Asks for what logs in to the registries of one region: `AWS:PASSWORD` in base64, which is docker's own form. It opens
/// every registry that the role may read, for twelve hours.
///
/// # Errors
/// What ECR says.
pub(super) async fn token(
    access: &Access,
    region: &str,
    shared: &Shared,
    ui: Ui,
) -> Result<Secret> {
    let there = Access {
        region: Some(region.to_owned()),
        ..access.clone()
    };
    let aws = Aws::new(&there, Some(ui), shared).await;
    let ecr = aws_sdk_ecr::Client::from_conf(
        aws_sdk_ecr::config::Builder::from(&aws.config)
            .interceptor(aws.target.clone())
            .build(),
    );
    let call = async || ecr.get_authorization_token().send().await;
    let answer = aws.call(Action::GetAuthorizationToken, TOKEN_LIMIT, call);
    let answer = answer.await.map_err(|failure| {
        let what = format!("ECR in {region} gives no token to pull by");
        failure.verdict.error(failure.verdict.why.kind(), &what)
    })?;
    let mut all = answer.authorization_data().iter();
    let token = all.find_map(|data| data.authorization_token());
    token.map(|token| Secret(token.to_owned())).ok_or_else(|| {
        Error::new(
            Kind::Launch,
            format!("ECR in {region} answers without a token"),
        )
        .hint("Retry the job.")
    })
}
