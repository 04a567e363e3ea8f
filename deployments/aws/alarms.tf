# Alarms on what AWS itself sees. The service's own metrics say more: scrape /metrics from inside the VPC, and
# use the rules in ../alerts.

resource "aws_sns_topic" "alarms" {
  count = var.alarm_email == "" ? 0 : 1
  name  = "${var.name}-alarms"
}

resource "aws_sns_topic_subscription" "alarms" {
  count     = var.alarm_email == "" ? 0 : 1
  topic_arn = aws_sns_topic.alarms[0].arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

locals {
  topics = concat(var.alarm_topic_arns, aws_sns_topic.alarms[*].arn)

  alarms = {
    "load-balancer-5xx" = {
      namespace  = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", statistic = "Sum", threshold = 10
      dimensions = { LoadBalancer = aws_lb.service.arn_suffix }
    }
    "service-5xx" = {
      namespace  = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", statistic = "Sum", threshold = 100
      dimensions = { LoadBalancer = aws_lb.service.arn_suffix }
    }
    "unhealthy-replicas" = {
      namespace  = "AWS/ApplicationELB", metric = "UnHealthyHostCount", statistic = "Maximum", threshold = 0
      dimensions = { LoadBalancer = aws_lb.service.arn_suffix, TargetGroup = aws_lb_target_group.service.arn_suffix }
    }
    "database-cpu" = {
      namespace  = "AWS/RDS", metric = "CPUUtilization", statistic = "Average", threshold = 80
      dimensions = { DBClusterIdentifier = aws_rds_cluster.database.cluster_identifier, Role = "WRITER" }
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "alarm" {
  for_each            = local.alarms
  alarm_name          = "${var.name}-${each.key}"
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  statistic           = each.value.statistic
  dimensions          = each.value.dimensions
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = 5
  datapoints_to_alarm = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.topics
  ok_actions          = local.topics
}
