//! Store-and-forward: a mailbox store on redb and the layers that fill and serve it.
