"""How much of a mask, or of records behind a defence, leaked pairs and public data give back."""

from splitpriv.attacks.recovery.ciphertext_only import CiphertextOnlyMask
from splitpriv.attacks.recovery.encoder_inversion import EncoderInversion
from splitpriv.attacks.recovery.front_door import recover_mask
from splitpriv.attacks.recovery.known_plaintext_mask import KnownPlaintextMask
from splitpriv.attacks.recovery.known_plaintext_relu import KnownPlaintextRelu
from splitpriv.attacks.recovery.report import RecoveryReport
from splitpriv.attacks.recovery.result import RecoveryPoint, RecoveryResult

__all__ = [
    "CiphertextOnlyMask",
    "EncoderInversion",
    "KnownPlaintextMask",
    "KnownPlaintextRelu",
    "RecoveryPoint",
    "RecoveryReport",
    "RecoveryResult",
    "recover_mask",
]
