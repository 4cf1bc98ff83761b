"""Named templates of virtual machines."""

from __future__ import annotations

from moln.compute.v1.template_pb2 import Template
from moln.compute.v1.template_service_pb2 import GetTemplateRequest, ListTemplatesRequest, ListTemplatesResponse
from services.cli.objects import Resource
from services.cli.sizes import age, mib
from services.cli.tables import Column

TEMPLATES: Resource[Template] = Resource(
    word="template",
    service="moln.compute.v1.TemplateService",
    message=Template,
    get_request=GetTemplateRequest,
    list_request=ListTemplatesRequest,
    list_reply=ListTemplatesResponse,
    items="templates",
    name_of=lambda template: template.spec.name,
    columns=(
        Column("ID", lambda item: str(item.id), is_number=True),
        Column("NAME", lambda item: item.spec.name),
        Column("VCPUS", lambda item: str(item.spec.template.vcpus or 1), is_number=True),
        Column("MEMORY", lambda item: mib(item.spec.template.memory_mib), is_number=True),
        Column("IMAGE", lambda item: ",".join(disk.image for disk in item.spec.template.disks if disk.image)),
        Column("PUBLIC", lambda item: "yes" if item.spec.is_public else "no"),
        Column("OWNER", lambda item: str(item.spec.owner_id), is_wide=True, is_number=True),
        Column("AGE", lambda item: age(item.spec.create_time)),
    ),
)
