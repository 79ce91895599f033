//! Composes layers from the inside out.

use tower_layer::Layer;
use tower_service::Service;

/// A service with the layers pushed so far around it.
#[derive(Clone, Debug)]
pub struct Stack<S>(S);

/// Starts a stack with its innermost service.
pub const fn stack<S>(inner: S) -> Stack<S> {
    Stack(inner)
}

impl<S> Stack<S> {
    /// Puts `layer` around everything pushed so far: a message meets it first.
    pub fn push<L: Layer<S>>(self, layer: L) -> Stack<L::Service> {
        Stack(layer.layer(self.0))
    }

    /// The identity, with a bound that puts a type error where the request type changes.
    #[must_use]
    pub fn check_service<Request>(self) -> Self
    where
        S: Service<Request>,
    {
        self
    }

    /// The composed service.
    pub fn into_inner(self) -> S {
        self.0
    }
}
