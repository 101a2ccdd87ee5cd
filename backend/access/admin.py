"""Who may: devices with their keys, users and roles. And who did: the audit log."""

from typing import Any

from auditlog.admin import LogEntryAdmin
from auditlog.models import LogEntry
from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.timezone import localtime
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import RelatedDropdownFilter
from unfold.decorators import action, display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from backend.access import services
from backend.access.models import Device, Scope
from backend.common.admin import AuditedAdmin, label
from backend.common.audit import done_by


class DeviceForm(forms.ModelForm):
    scopes = forms.MultipleChoiceField(
        choices=Scope.choices,
        initial=[Scope.RECOGNISE],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="What a request with this device's key may do.",
    )

    class Meta:
        model = Device
        fields = ["name", "scopes", "product_set", "is_active"]


@admin.register(Device)
class DeviceAdmin(AuditedAdmin):
    """Tills, scales, phones, programs. A key is shown on the page that follows its making, and never again."""

    form = DeviceForm
    empty_note = "A device is whoever holds a key: a till, a scale, a phone, a program. Add the first."
    list_display = ["name", "shown_scopes", "product_set", "is_active", "key_prefix", "last_seen_at"]
    list_filter = [("product_set", RelatedDropdownFilter), "is_active"]
    list_filter_submit = True
    search_fields = ["name", "key_prefix"]
    autocomplete_fields = ["product_set"]
    readonly_fields = ["key_prefix", "last_seen_at", "created_at"]
    fieldsets = [
        ("Device", {"fields": ["name", "scopes", "product_set", "is_active"]}),
        ("Key", {"fields": [("key_prefix", "last_seen_at", "created_at")]}),
    ]
    add_fieldsets = [("Device", {"fields": ["name", "scopes", "product_set"]})]
    actions_detail = ["renew_key"]

    @display(description="Scopes")
    def shown_scopes(self, device: Device) -> str:
        return ", ".join(device.scopes)

    def save_model(self, request: HttpRequest, obj: Device, form: DeviceForm, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        device, key = services.create_device(
            name=obj.name, scopes=form.cleaned_data["scopes"], product_set_id=obj.product_set_id
        )
        obj.pk = device.pk
        obj.refresh_from_db()
        obj.new_key = key  # type: ignore[attr-defined]  # for response_add, which ends this request

    def response_add(
        self, request: HttpRequest, obj: Device, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._show_key(request, obj, obj.new_key)  # type: ignore[attr-defined]

    @action(description="Renew key", url_path="renew-key", icon="key", permissions=["change"])
    def renew_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask first: the old key stops at once."""
        device = self.get_object(request, object_id)
        if not isinstance(device, Device):
            raise Http404
        if request.method == "POST":
            key = services.renew_key(device)
            self.log_change(request, device, "Key renewed.")
            return self._show_key(request, device, key)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Renew the key of {device}",
            "opts": self.opts,
            "original": device,
            "device": device,
        }
        return TemplateResponse(request, "access/renew_key.html", context)

    def _show_key(self, request: HttpRequest, device: Device, key: str) -> HttpResponse:
        """In the answer itself: not in a message, which would lie in a cookie, nor behind an address."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"Key of {device}",
            "opts": self.opts,
            "original": device,
            "device": device,
            "key": key,
            "address": request.build_absolute_uri("/api/v1/recognitions"),
        }
        return TemplateResponse(request, "access/key.html", context)


admin.site.unregister(User)
admin.site.unregister(Group)
admin.site.unregister(LogEntry)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
    """Roles are groups. Only a superuser makes superusers, or changes them."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "first_name", "last_name", "roles", "is_active", "last_login"]
    list_filter = ["groups", "is_active"]
    filter_horizontal = []
    autocomplete_fields = ["groups"]
    fieldsets = [
        ("User", {"fields": ["username", "password", ("first_name", "last_name"), "email"]}),
        (
            "May",
            {
                "fields": ["is_active", "is_staff", "is_superuser", "groups"],
                "description": "Staff may log in here. What they see is up to their roles: manager or operator.",
            },
        ),
        ("When", {"fields": [("last_login", "date_joined")]}),
    ]
    add_fieldsets = [
        ("User", {"fields": ["username", "usable_password", "password1", "password2"]}),
        ("May", {"fields": ["is_staff", "groups"]}),
    ]
    readonly_fields = ["last_login", "date_joined"]

    @display(description="Roles")
    def roles(self, user: User) -> str:
        names = [group.name for group in user.groups.all()]
        return ", ".join([*(["superuser"] if user.is_superuser else []), *names]) or "none"

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("groups")

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        superuser = request.user.is_superuser
        return self.readonly_fields if superuser else [*self.readonly_fields, "is_superuser"]

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)


def _may_touch(request: HttpRequest, user: Model | None) -> bool:
    return request.user.is_superuser or not getattr(user, "is_superuser", False)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    search_fields = ["name"]


@admin.register(LogEntry)
class AuditLogAdmin(ModelAdmin, LogEntryAdmin):
    list_display = ["created", "shown_action", "resource_url", "msg_short", "user_url"]
    list_display_links = ["created"]
    readonly_fields = ["created", "user_url", "resource_url", "shown_action", "shown_changes"]
    fieldsets = [
        ("Change", {"fields": [("created", "user_url"), ("resource_url", "shown_action"), "shown_changes"]})
    ]
    search_fields = [*LogEntryAdmin.search_fields, "additional_data__by"]

    @display(description="By")
    def user_url(self, entry: LogEntry) -> str:
        return done_by(entry)

    @display(description="Action", ordering="action")
    def shown_action(self, entry: LogEntry) -> str:
        return label(entry.get_action_display())

    @display(description="Created", ordering="timestamp")
    def created(self, entry: LogEntry) -> str:
        return date_format(localtime(entry.timestamp), "j M Y, H:i:s")

    @display(description="Changes")
    def shown_changes(self, entry: LogEntry) -> str:
        return format_html('<div class="ck-history">{}</div>', self.msg(entry))

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """An entry has no history of its own."""
        return super().change_view(
            request, object_id, form_url, (extra_context or {}) | {"show_history": False}
        )
