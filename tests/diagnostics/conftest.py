from tests.distributed.conftest import ranks as ranks
