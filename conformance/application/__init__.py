"""The lab's own application: a small framed protocol over mutual TLS, in the place of Juki Net's."""
