//! Tower stack that turns a send request into sealed frames for chosen peers.
