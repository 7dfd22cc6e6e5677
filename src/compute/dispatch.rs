//! From the list of kinds to what stages call: each function finds the kind that some data are of, and asks it.
//!
//! The futures of the kinds are boxed: one within the other, with the stages' own around them, they were too deep for rustc
//! to lay out (its limit on the depth of queries).

/// Makes the dispatch of a list of kinds. Each line has the name of the kind's variant in [`Request`](crate::machine::Request)
/// and [`Place`](crate::machine::Place), and the type that is its face.
macro_rules! kinds {
    ($($name:ident: $kind:ty,)+) => {
        /// A machine on its way up.
        #[derive(Debug)]
        pub enum Coming {
            $(
                #[doc = concat!("One of the kind `", stringify!($name), "`.")]
                $name(Box<<$kind as MachineKind>::Coming>),
            )+
        }

        /// What a machine has to be asked for before a login, where it does not know the job's key by itself.
        #[derive(Debug)]
        pub enum Admission {
            $(
                #[doc = concat!("To one of the kind `", stringify!($name), "`.")]
                $name(Box<<<$kind as MachineKind>::Coming as ComingUp>::Admission>),
            )+
        }

        impl ComingUp for Coming {
            type Admission = Admission;

            fn name(&self) -> Option<&str> {
                match self {
                    $(Self::$name(coming) => coming.name(),)+
                }
            }

            fn admission(&mut self) -> Option<Admission> {
                match self {
                    $(Self::$name(coming) => coming.admission().map(Box::new).map(Admission::$name),)+
                }
            }

            fn entered(&mut self) {
                match self {
                    $(Self::$name(coming) => coming.entered(),)+
                }
            }

            async fn next(&mut self) -> Result<News, Error> {
                match self {
                    $(Self::$name(coming) => coming.next().await,)+
                }
            }
        }

        impl Admits for Admission {
            async fn renew(&mut self, refused: bool) -> Result<(), Refused> {
                match self {
                    $(Self::$name(admission) => admission.renew(refused).await,)+
                }
            }
        }

        /// Completes a request by what has to be looked up first.
        ///
        /// # Errors
        /// Where what it names does not exist, or AWS does not say.
        pub async fn settle(
            request: &mut Request,
            store: &Store,
            ui: Ui,
        ) -> Result<Settled, Refused> {
            match request {
                $(Request::$name(request) => Box::pin(<$kind>::settle(request, store, ui)).await,)+
            }
        }

        /// Sends a request.
        ///
        /// # Errors
        /// Where nothing can be started by it.
        pub async fn launch(
            request: &Request,
            job: &Job,
            login: &Login,
            rung_wait: Duration,
            store: &Store,
            ui: Ui,
        ) -> Result<Launched<Coming>, Refused> {
            match request {
                $(Request::$name(request) => {
                    let launched = <$kind>::launch(request, job, login, rung_wait, store, ui);
                    Ok(Box::pin(launched).await?.map(|coming| Coming::$name(Box::new(coming))))
                })+
            }
        }

        /// Takes back what a request has left beside a machine, after it was refused for good and that was written down.
        pub async fn withdraw(request: &Request, store: &Store, ui: Ui) {
            match request {
                $(Request::$name(request) => Box::pin(<$kind>::withdraw(request, store, ui)).await,)+
            }
        }

        /// Ends whatever a launch may have started, answer or not. The reason is for AWS's records; long waits for it are
        /// told.
        ///
        /// # Errors
        /// Where something of it is left alive.
        pub async fn end(launch: &Launch, reason: &str, shared: &Shared, ui: Ui) -> Result<(), Error> {
            let name = match &launch.state {
                LaunchState::Over => return Ok(()),
                LaunchState::Asked => None,
                LaunchState::Named(name) => Some(name.as_str()),
            };
            match &launch.request {
                $(Request::$name(request) => {
                    Box::pin(<$kind>::end_launch(request, name, reason, shared, ui)).await
                })+
            }
        }

        /// Ends a machine; long waits are told.
        ///
        /// # Errors
        /// Where something of it is left alive.
        pub async fn end_machine(
            machine: &Machine,
            reason: &str,
            shared: &Shared,
            ui: Ui,
        ) -> Result<(), Error> {
            match &machine.place {
                $(Place::$name(place) => {
                    Box::pin(<$kind>::end_machine(place, reason, shared, ui)).await
                })+
            }
        }

        /// Resolves, with the reason, when a machine is gone. `lost` is told when a connection to it was lost.
        pub async fn gone(place: &Place, lost: &Notify, shared: &Shared) -> Error {
            match place {
                $(Place::$name(place) => Box::pin(<$kind>::gone(place, lost, shared)).await,)+
            }
        }

        /// Asks for what logs in to ECR's registries of one region.
        async fn registry_token(
            place: &Place,
            region: &str,
            shared: &Shared,
            ui: Ui,
        ) -> Result<Secret, Error> {
            match place {
                $(Place::$name(place) => {
                    Box::pin(<$kind>::registry_token(place, region, shared, ui)).await
                })+
            }
        }
    };
}
