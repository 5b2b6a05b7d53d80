"""What a silo does, without sockets and messages: spaces, alignments, classifiers, language-model heads."""

from sealign_server.serving.alignment import Alignments, EncryptedSession
from sealign_server.serving.classification import Classification
from sealign_server.serving.generation import Generation
from sealign_server.serving.public_keys import PublicKeys
from sealign_server.serving.silo import Silo

__all__ = ["Alignments", "Classification", "EncryptedSession", "Generation", "PublicKeys", "Silo"]
