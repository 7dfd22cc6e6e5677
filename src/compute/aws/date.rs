//! AWS's own clock: every answer has its time in the header `Date`, refusals too. What ends machines by a time goes by it as
//! well as by this host's.

use std::sync::{Arc, Mutex};

use aws_sdk_ecs::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_ecs::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ecs::error::BoxError;
use aws_sdk_ecs::primitives::{DateTime, DateTimeFormat};

use crate::state::record::now;

/// By how much this host's clock is ahead of AWS's, in seconds, as the last answer says; shared by all clients of a way to AWS.
#[derive(Clone, Debug, Default)]
pub(in crate::compute) struct AwsDate(Arc<Mutex<Option<i64>>>);

impl AwsDate {
    /// Returns by how many seconds this host's clock is ahead; nothing while no answer has said a time.
    pub(super) fn ahead(&self) -> Option<i64> {
        self.0.lock().ok().and_then(|ahead| *ahead)
    }

    fn note(&self, date: &str, here: u64) {
        let Ok(date) = DateTime::from_str(date, DateTimeFormat::HttpDate) else {
            return;
        };
        if let Ok(mut ahead) = self.0.lock() {
            *ahead = i64::try_from(here)
                .ok()
                .map(|here| here.saturating_sub(date.secs()));
        }
    }
}

impl Intercept for AwsDate {
    fn name(&self) -> &'static str {
        "AwsDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date") {
            self.note(date, now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_that_says_a_time_counts() {
        let date = AwsDate::default();
        assert_eq!(date.ahead(), None);
        for nonsense in ["", "yesterday", "Tue, 99 Foo 2026 00:00:00 GMT"] {
            date.note(nonsense, 784_111_777);
            assert_eq!(date.ahead(), None, "{nonsense}");
        }
        let said = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (here, ahead) in [(784_111_777, 0), (784_111_800, 23), (784_111_700, -77)] {
            date.note(said, here);
            assert_eq!(date.ahead(), Some(ahead));
        }
        date.note("nonsense", 0);
        assert_eq!(date.ahead(), Some(-77));
        date.note(said, u64::MAX);
        assert_eq!(date.ahead(), None);
    }
}
