from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("dashboard", "0005_lead_round")]

    operations = [
        migrations.RemoveField(model_name="webhookstats", name="duplicate_count"),
        migrations.RemoveField(model_name="webhookstats", name="unrelated_count"),
        migrations.RemoveField(model_name="stage", name="omitted_by_page"),
        migrations.RemoveField(model_name="catalogsync", name="omitted_by_page"),
        migrations.RemoveField(model_name="stage", name="list_order"),
        migrations.RemoveField(model_name="readrequest", name="user"),
        migrations.RemoveField(model_name="stage", name="confirmed_path_segment"),
        migrations.DeleteModel(name="WebhookEvent"),
    ]
